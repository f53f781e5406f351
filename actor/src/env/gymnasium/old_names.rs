//! What environments are called now that had other names, where Gymnasium does not say so.

use std::fmt::{self, Display, Formatter};

/// What followed an environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Successor {
    /// Its name.
    pub(super) name: String,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The same environment, in a newer version.
    Version,
    /// An Atari game, whose frames were prepared by its name.
    Frames,
    /// An Atari game by the bytes of its memory.
    Memory,
}

impl Display for Successor {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            Kind::Version => write!(f, "{name} is its newest version."),
            Kind::Frames => {
                write!(
                    f,
                    "It is {name} now; environment.atari says how its frames are prepared, frame skip and all."
                )
            }
            Kind::Memory => write!(
                f,
                "It is {name} now, with environment.atari.preprocess=false and environment.kwargs.obs_type=ram."
            ),
        }
    }
}

/// What `name` is called now, if one of the `known` names has followed it.
pub(super) fn successor(name: &str, known: &[String]) -> Option<Successor> {
    let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
    let (base, version) = versioned(name)?;
    atari(base, known).or_else(|| {
        let newest = known.iter().filter_map(|other| Some((versioned(other)?, other)));
        let newest = newest.filter(|((other, _), _)| *other == base).max_by_key(|((_, version), _)| *version);
        let ((_, newest), name) = newest?;
        (newest > version).then(|| Successor { name: name.clone(), kind: Kind::Version })
    })
}

/// `Some-v3` as `Some` and 3.
fn versioned(name: &str) -> Option<(&str, u32)> {
    let (base, version) = name.rsplit_once("-v")?;
    Some((base, version.parse().ok()?))
}

/// `Pong`, `PongNoFrameskip`, `Pong-ram`, and so on.
fn atari(base: &str, known: &[String]) -> Option<Successor> {
    let base = base.strip_prefix("ALE/").unwrap_or(base);
    let plain =
        ["NoFrameskip", "Deterministic"].iter().find_map(|end| base.strip_suffix(end)).unwrap_or(base);
    let (game, kind) = match plain.strip_suffix("-ram") {
        Some(game) => (game, Kind::Memory),
        None => (plain, Kind::Frames),
    };
    let name = known
        .iter()
        .find(|name| name.strip_prefix("ALE/").and_then(versioned).is_some_and(|(x, _)| x == game));
    name.map(|name| Successor { name: name.clone(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_are_followed() {
        let known = ["ALE/Pong-v5", "ALE/MsPacman-v5", "HalfCheetah-v4", "HalfCheetah-v5", "Pusher-v5"]
            .map(String::from);
        let now = |name: &str| successor(name, &known).map(|found| found.to_string()).unwrap_or_default();
        for old in ["PongNoFrameskip-v4", "Pong-v0", "PongDeterministic-v4", "ale_py:Pong-v4"] {
            assert!(now(old).starts_with("It is ALE/Pong-v5 now; environment.atari"), "{old}: {}", now(old));
        }
        for old in ["MsPacman-ram-v0", "MsPacman-ramNoFrameskip-v4", "ALE/MsPacman-ram-v5"] {
            assert!(
                now(old).contains("ALE/MsPacman-v5 now, with") && now(old).contains("obs_type=ram"),
                "{old}"
            );
        }
        assert_eq!(now("HalfCheetah-v2"), "HalfCheetah-v5 is its newest version.");
        for other in ["HalfCheetah-v7", "HalfCheetahs-v1", "Nothing", "Nothing-vx", "Breakout-v4"] {
            assert_eq!(now(other), "", "{other}");
        }
    }
}
