use super::*;
use crate::config::ImageLayout;
use crate::space::ElementType;

fn space(shape: &[usize], dtype: ElementType, high: f32) -> Space {
    let len = shape.iter().product();
    Space::Box { low: vec![0.0; len], high: vec![high; len], shape: shape.into(), dtype }
}

fn bytes(shape: &[usize]) -> Space {
    space(shape, ElementType::U8, 255.0)
}

fn of(space: &Space, section: &PolicySection) -> EncoderSpec {
    EncoderSpec::new(space, section).unwrap()
}

fn refused(space: &Space, section: &PolicySection) -> String {
    EncoderSpec::new(space, section).unwrap_err().to_string()
}

/// Names and shapes of weights, without biases.
fn weights(spec: &EncoderSpec) -> Vec<(String, Vec<usize>)> {
    let parameters = spec.parameters("encoder").into_iter();
    parameters.filter(|p| p.name.ends_with(".weight")).map(|p| (p.name, p.shape)).collect()
}

#[test]
fn the_space_chooses_the_encoder() {
    let auto = PolicySection::default();
    let kind = |space: &Space| of(space, &auto).kind;
    assert_eq!(kind(&bytes(&[4, 84, 84])), EncoderKind::Nature);
    assert_eq!(kind(&bytes(&[210, 160, 3])), EncoderKind::Nature);
    assert_eq!(kind(&bytes(&[36, 36])), EncoderKind::Nature);
    assert_eq!(kind(&bytes(&[35, 36])), EncoderKind::Minatar);
    assert_eq!(kind(&space(&[10, 10, 4], ElementType::U8, 1.0)), EncoderKind::Minatar);
    assert_eq!(kind(&space(&[7, 7, 3], ElementType::F32, 1.0)), EncoderKind::Minatar);
    assert_eq!(kind(&space(&[84, 84], ElementType::F32, 1.0)), EncoderKind::Mlp);
    assert_eq!(kind(&bytes(&[128])), EncoderKind::Mlp);
    assert_eq!(kind(&Space::Discrete { n: 5 }), EncoderKind::Mlp);
}

#[test]
fn encoders_have_their_authors_sizes() {
    let atari = bytes(&[4, 84, 84]);
    let name = |name: &str| format!("encoder.{name}.weight");
    assert_eq!(
        weights(&of(&atari, &PolicySection::default())),
        [
            (name("convolution.0"), vec![32, 8, 8, 4]),
            (name("convolution.1"), vec![64, 4, 4, 32]),
            (name("convolution.2"), vec![64, 3, 3, 64]),
            (name("0"), vec![512, 3136]),
        ]
    );
    let minatar = space(&[10, 10, 4], ElementType::U8, 1.0);
    assert_eq!(
        weights(&of(&minatar, &PolicySection::default())),
        [(name("convolution.0"), vec![16, 3, 3, 4]), (name("0"), vec![128, 1024])]
    );
    let residual = PolicySection { encoder: EncoderKind::Residual, ..PolicySection::default() };
    let residual = weights(&of(&atari, &residual));
    assert_eq!(residual.len(), 3 * 5 + 1);
    assert_eq!(residual[0], (name("section.0.convolution"), vec![16, 3, 3, 4]));
    assert_eq!(residual[4], (name("section.0.block.1.1"), vec![16, 3, 3, 16]));
    assert_eq!(residual[5], (name("section.1.convolution"), vec![32, 3, 3, 16]));
    assert_eq!(residual[15], (name("0"), vec![256, 3872]), "11 x 11 pixels of 32 channels are left");
    let flat = PolicySection { encoder: EncoderKind::Mlp, ..PolicySection::default() };
    assert_eq!(weights(&of(&atari, &flat)), [(name("0"), vec![64, 28224]), (name("1"), vec![64, 64])]);
}

#[test]
fn sizes_can_be_set_and_must_fit() {
    let minatar = space(&[10, 10, 4], ElementType::U8, 1.0);
    let section = PolicySection {
        channels: vec![8, 12].into(),
        kernels: vec![3, 2].into(),
        strides: vec![2, 1].into(),
        hidden: vec![20, 10].into(),
        ..PolicySection::default()
    };
    let shapes: Vec<_> = weights(&of(&minatar, &section)).into_iter().map(|(_, shape)| shape).collect();
    assert_eq!(shapes, [vec![8, 3, 3, 4], vec![12, 2, 2, 8], vec![20, 108], vec![10, 20]]);
    let odd = PolicySection { channels: vec![8, 12].into(), ..PolicySection::default() };
    assert!(refused(&minatar, &odd).contains("must have a number for each layer"));
    let nature = PolicySection { encoder: EncoderKind::Nature, ..PolicySection::default() };
    let error = refused(&minatar, &nature);
    assert!(error.contains("10 x 10 pixels in 4 channels: at layer 1 they are 1 x 1"), "{error}");
    let error = refused(&Space::Discrete { n: 3 }, &nature);
    assert!(error.contains("policy.encoder = \"nature\" looks at images"), "{error}");
    let error = refused(&bytes(&[8]), &section);
    assert!(error.contains("policy.channels with policy.encoder = \"mlp\""), "{error}");
}

#[test]
fn activation_and_layout_follow_the_kind_unless_set() {
    let (atari, vector) = (bytes(&[4, 84, 84]), space(&[3], ElementType::F32, 1.0));
    let hidden = |space: &Space, activation| {
        of(space, &PolicySection { activation, ..PolicySection::default() }).hidden.activation
    };
    assert_eq!(hidden(&atari, config::Activation::Auto), Activation::Relu);
    assert_eq!(hidden(&atari, config::Activation::Tanh), Activation::Tanh);
    assert_eq!(hidden(&vector, config::Activation::Auto), Activation::Tanh);
    assert_eq!(hidden(&vector, config::Activation::Relu), Activation::Relu);
    let last = PolicySection { image_layout: ImageLayout::ChannelsLast, ..PolicySection::default() };
    let error = refused(&atari, &PolicySection { encoder: EncoderKind::Nature, ..last.clone() });
    assert!(error.contains("4 x 84 pixels in 84 channels"), "{error}");
    assert_eq!(of(&atari, &last).kind, EncoderKind::Mlp, "four rows are no picture");
}

#[test]
fn the_page_on_networks_tells_their_sizes() {
    const PAGE: &str = include_str!("../../../../../docs/concepts/networks.md");
    let grouped = |number: u64| {
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
        groups.join(",")
    };
    let (atari, minatar) = (bytes(&[4, 84, 84]), space(&[10, 10, 4], ElementType::U8, 1.0));
    for (kind, space) in [
        (EncoderKind::Mlp, &Space::boxed(&[0.0; 4], &[1.0; 4])),
        (EncoderKind::Minatar, &minatar),
        (EncoderKind::Nature, &atari),
        (EncoderKind::Residual, &atari),
    ] {
        let spec = of(space, &PolicySection { encoder: kind, ..PolicySection::default() });
        let parameters: usize = spec.parameters("encoder").iter().map(|p| p.len()).sum();
        let line =
            format!("| `\"{kind}\"` | {} | {} |", grouped(parameters as u64), grouped(spec.products()));
        assert!(PAGE.contains(&line), "{line}");
    }
}

#[test]
fn what_an_observation_costs_is_what_its_layers_multiply() {
    let atari = bytes(&[4, 84, 84]);
    let products = |kind| of(&atari, &PolicySection { encoder: kind, ..PolicySection::default() }).products();
    let nature = 400 * 32 * 256 + 81 * 64 * 512 + 49 * 64 * 576 + 3136 * 512;
    assert_eq!(products(EncoderKind::Nature), nature);
    let section = |size: u64, inputs: u64, outputs: u64| {
        let pooled = size.div_ceil(2).pow(2);
        9 * (size * size * inputs * outputs + 4 * pooled * outputs * outputs)
    };
    let residual = section(84, 4, 16) + section(42, 16, 32) + section(21, 32, 32) + 3872 * 256;
    assert_eq!(products(EncoderKind::Residual), residual);
}
