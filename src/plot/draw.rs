//! Draws panels of curves on any of plotters' surfaces.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::curves::Band;

/// Width and height of a panel.
pub(super) const PANEL: (u32, u32) = (760, 480);

/// Panels side by side.
const COLUMNS: usize = 2;

/// Colours that people of any colour vision can tell apart (Okabe and Ito 2008).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// The one font, by the name under which `picture` registers it, and viewers of SVG know it.
pub(super) const FONT: &str = "sans-serif";

/// What the axes show.
#[derive(Debug)]
pub(super) struct Axes {
    pub(super) x: String,
    pub(super) y: String,
}

/// The curves of one environment.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    /// Height of a dashed line: the return that counts as solved.
    pub(super) level: Option<f64>,
    pub(super) series: Vec<Series>,
}

/// A line, and a band around it where it stands for several runs.
#[derive(Debug)]
pub(super) struct Series {
    label: String,
    line: Vec<(f64, f64)>,
    /// `(x, low, high)`; empty for a single run.
    band: Vec<(f64, f64, f64)>,
}

impl Series {
    /// A single run.
    pub(super) fn line(label: String, line: Vec<(f64, f64)>) -> Self {
        Self { label, line, band: vec![] }
    }

    /// Median and range of several.
    pub(super) fn band(label: String, bands: Vec<Band>) -> Self {
        let line = bands.iter().map(|b| (b.x, b.median)).collect();
        Self { label, line, band: bands.iter().map(|b| (b.x, b.low, b.high)).collect() }
    }
}

/// Pixels of a picture of `panels` panels, before scaling.
pub(super) fn size(panels: usize) -> (u32, u32) {
    let columns = panels.clamp(1, COLUMNS);
    (PANEL.0 * columns as u32, PANEL.1 * panels.max(1).div_ceil(columns) as u32)
}

type DrawError<S> = DrawingAreaErrorKind<<S as DrawingBackend>::ErrorType>;

/// Draws `panels` on `surface`, whose pixels are `size` times `scale`.
pub(super) fn draw<S: DrawingBackend>(
    surface: S,
    panels: &[Panel],
    axes: &Axes,
    scale: u32,
) -> Result<(), DrawError<S>> {
    let root = surface.into_drawing_area();
    root.fill(&WHITE)?;
    let columns = panels.len().clamp(1, COLUMNS);
    let areas = root.split_evenly((panels.len().div_ceil(columns), columns));
    for (panel, area) in panels.iter().zip(&areas) {
        draw_panel(area, panel, axes, scale)?;
    }
    root.present()
}

fn draw_panel<S: DrawingBackend>(
    area: &DrawingArea<S, Shift>,
    panel: &Panel,
    axes: &Axes,
    scale: u32,
) -> Result<(), DrawError<S>> {
    let text = |size: u32| (FONT, size * scale).into_font();
    let (xs, ys) = ranges(panel);
    let legend =
        if ends_low(panel, &ys) { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::LowerRight };
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, text(19))
        .margin(14 * scale)
        .x_label_area_size(46 * scale)
        .y_label_area_size(66 * scale)
        .build_cartesian_2d(xs.clone(), ys)?;
    chart
        .configure_mesh()
        .x_desc(&axes.x)
        .y_desc(&axes.y)
        .axis_desc_style(text(15))
        .label_style(text(13))
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .bold_line_style(BLACK.mix(0.12))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (series, &color) in panel.series.iter().zip(COLORS.iter().cycle()) {
        draw_series(&mut chart, series, color, scale)?;
    }
    if let Some(level) = panel.level {
        let style = BLACK.mix(0.6).stroke_width(scale);
        let line = DashedLineSeries::new([(xs.start, level), (xs.end, level)], 6 * scale, 5 * scale, style);
        chart
            .draw_series(line)?
            .label(format!("solved: {}", short(level)))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18 * scale as i32, y)], style));
    }
    chart
        .configure_series_labels()
        .position(legend)
        .margin(10 * scale)
        .legend_area_size(26 * scale)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.25))
        .label_font(text(14))
        .draw()
}

type Chart<'a, S> = ChartContext<'a, S, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw_series<S: DrawingBackend>(
    chart: &mut Chart<'_, S>,
    series: &Series,
    color: RGBColor,
    scale: u32,
) -> Result<(), DrawError<S>> {
    if !series.band.is_empty() {
        let above = series.band.iter().map(|&(x, _, high)| (x, high));
        let below = series.band.iter().rev().map(|&(x, low, _)| (x, low));
        chart.draw_series([Polygon::new(above.chain(below).collect::<Vec<_>>(), color.mix(0.2).filled())])?;
    }
    let style = color.stroke_width(2 * scale);
    // A line of one point could not be seen.
    if let [point] = series.line.as_slice() {
        chart.draw_series([Circle::new(*point, 3 * scale, color.filled())])?;
    }
    chart
        .draw_series(LineSeries::new(series.line.iter().copied(), style))?
        .label(&series.label)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 18 * scale as i32, y)], style));
    Ok(())
}

/// Whether most lines end in the lower half, where the legend would hide them.
fn ends_low(panel: &Panel, ys: &Range<f64>) -> bool {
    let middle = f64::midpoint(ys.start, ys.end);
    let ends: Vec<f64> = panel.series.iter().filter_map(|series| Some(series.line.last()?.1)).collect();
    2 * ends.iter().filter(|&&end| end < middle).count() > ends.len()
}

/// What the axes of `panel` span: from 0 along x, and all values with a margin along y.
fn ranges(panel: &Panel) -> (Range<f64>, Range<f64>) {
    let lines = || panel.series.iter().flat_map(|series| series.line.iter().copied());
    let bands = panel.series.iter().flat_map(|series| &series.band);
    let values = lines().map(|point| point.1).chain(bands.flat_map(|&(_, low, high)| [low, high]));
    let values: Vec<f64> = values.chain(panel.level).collect();
    let end = lines().map(|point| point.0).fold(0.0, f64::max);
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let margin = if high > low { 0.05 * (high - low) } else { (0.1 * high.abs()).max(1e-3) };
    // Nothing that cannot be negative starts below 0.
    let bottom = if low >= 0.0 { (low - margin).max(0.0) } else { low - margin };
    (0.0..if end > 0.0 { end } else { 1.0 }, bottom..high + margin)
}

/// `value` for an axis: 500k, 1.5M, -200, 0.05.
fn short(value: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let unit = units.into_iter().find(|(unit, _)| value.abs() >= 0.999_999 * unit);
    // Thousands are short enough to be told in full.
    let (unit, sign) = unit.filter(|_| value.abs() >= 9_999.0).unwrap_or((1.0, ""));
    let value = value / unit;
    let digits = match value.abs() {
        size if !(1e-12..100.0).contains(&size) => 0,
        size => (2 - size.log10().floor() as i32).clamp(0, 9) as usize,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let text = if text == "-0" { "0" } else { text };
    format!("{text}{sign}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_keeps_clear_of_where_most_lines_end() {
        let panel = |ends: &[f64]| Panel {
            title: String::new(),
            level: None,
            series: ends
                .iter()
                .map(|&end| Series::line(String::new(), vec![(0.0, 5.0), (1.0, end)]))
                .collect(),
        };
        let low = |ends: &[f64]| ends_low(&panel(ends), &(0.0..10.0));
        assert!(low(&[1.0]) && low(&[1.0, 2.0, 9.0]));
        assert!(!low(&[9.0]) && !low(&[1.0, 9.0]) && !low(&[]));
    }

    #[test]
    fn ticks_are_short() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (500.0, "500"),
            (-475.0, "-475"),
            (2500.0, "2500"),
            (12_500.0, "12.5k"),
            (500_000.0, "500k"),
            (1e6, "1M"),
            (999_999.999_999, "1M"),
            (1.25e6, "1.25M"),
            (2e9, "2G"),
            (0.05, "0.05"),
            (-0.001_25, "-0.00125"),
            (0.300_000_000_000_000_04, "0.3"),
            (1e-17, "0"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn axes_span_all_that_is_drawn() {
        let band = Band { x: 10.0, median: 2.0, low: 1.0, high: 5.0 };
        let panel = Panel {
            title: String::new(),
            level: Some(21.0),
            series: vec![
                Series::line(String::new(), vec![(20.0, 4.0)]),
                Series::band(String::new(), vec![band]),
            ],
        };
        assert_eq!(ranges(&panel), (0.0..20.0, 0.0..22.0));
        let flat = Series::line(String::new(), vec![(0.0, -100.0)]);
        let panel = Panel { title: String::new(), level: None, series: vec![flat] };
        assert_eq!(ranges(&panel), (0.0..1.0, -110.0..-90.0));
    }

    #[test]
    fn panels_stand_two_in_a_row() {
        let (width, height) = PANEL;
        let sizes = [1, 2, 3].map(size);
        assert_eq!(sizes, [(width, height), (2 * width, height), (2 * width, 2 * height)]);
    }
}
