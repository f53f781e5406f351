//! [`Token`]: a secret that a learner and its actors share. It comes from a file or the environment, never from a command
//! line, where every process of the machine could read it; and it is never shown.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use tonic::metadata::{Ascii, MetadataValue};

use super::SecurityError;

/// The environment variable that may hold the token.
pub const TOKEN_VARIABLE: &str = "IMPRESARIO_TOKEN";

/// Lengths of a token in bytes: shorter ones can be guessed, longer ones are no tokens but some other file.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=4096;

/// What stands before the token in a call's `authorization`.
const SCHEME: &str = "Bearer ";

/// Where the token comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TokenFlag {
    /// File that holds the token which learner and actors share, 16 or more characters without spaces; without the flag it is
    /// taken from the environment variable IMPRESARIO_TOKEN, if that is set
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub token_file: Option<PathBuf>,
}

impl TokenFlag {
    /// The token, if there is one. The flag wins over the environment.
    ///
    /// # Errors
    /// If the file cannot be read, or what it or the variable holds is no token.
    pub fn load(&self) -> Result<Option<Token>, SecurityError> {
        const FLAG: &str = "--token-file";
        if let Some(path) = &self.token_file {
            let text = std::fs::read_to_string(path).map_err(|source| SecurityError::Read {
                flag: FLAG,
                path: path.clone(),
                source,
            })?;
            let token = Token::parse(&text).map_err(|problem| SecurityError::Content {
                flag: FLAG,
                path: path.clone(),
                problem,
            })?;
            return Ok(Some(token));
        }
        match std::env::var_os(TOKEN_VARIABLE).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => {
                let text = value.to_str().unwrap_or_default();
                Token::parse(text).map(Some).map_err(SecurityError::Variable)
            }
        }
    }
}

/// A secret that learner and actors share.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

impl Token {
    /// The token in `text`, white space around it aside.
    ///
    /// # Errors
    /// If it is too short, too long, or has other characters than visible ones of ASCII. The message does not show it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !LENGTHS.contains(&text.len()) {
            return Err(format!(
                "a token has {} to {} characters, this one {}: make one with, say, `openssl rand -hex 32`",
                LENGTHS.start(),
                LENGTHS.end(),
                text.len()
            ));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("a token is made of visible ASCII characters without spaces in between".into());
        }
        Ok(Self(text.into()))
    }

    /// Whether a call that shows `authorization` shows this token. How long that takes says nothing of how much of it is
    /// right; it may tell the token's length.
    pub fn is_shown_by(&self, authorization: &[u8]) -> bool {
        let shown = authorization.strip_prefix(SCHEME.as_bytes()).unwrap_or_default();
        self.0.as_bytes().ct_eq(shown).into()
    }

    /// What a call shows as its `authorization`. Marked as sensitive: no log shows it, no table of headers keeps it.
    pub fn authorization(&self) -> MetadataValue<Ascii> {
        let text = format!("{SCHEME}{}", self.0);
        let mut value: MetadataValue<Ascii> = text.parse().expect("a token is visible ASCII");
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_token_is_known_by_all_of_its_characters_and_shown_by_none() {
        let token = Token::parse(&format!(" {TEXT}\n")).unwrap();
        let shown = token.authorization();
        assert!(token.is_shown_by(shown.as_bytes()));
        for other in ["", "Bearer ", TEXT, "Bearer 0123456789abcdef0123456789abcdee", "bearer x"] {
            assert!(!token.is_shown_by(other.as_bytes()), "{other}");
        }
        assert!(!token.is_shown_by(format!("Bearer {TEXT}0").as_bytes()));
        for debug in [format!("{token:?}"), format!("{shown:?}")] {
            assert!(!debug.contains("0123"), "{debug}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for text in ["", "secret", "sixteen letters and", "zwölf und vier Zeichen", &"x".repeat(5000)] {
            let problem = Token::parse(text).unwrap_err();
            assert!(text.is_empty() || !problem.contains(text), "{problem}");
        }
    }

    #[test]
    fn a_token_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let load = || TokenFlag { token_file: Some(path.clone()) }.load();
        let says = |expected: &str| {
            let error = load().unwrap_err().to_string();
            assert!(error.contains("--token-file") && error.contains(expected), "{error}");
        };
        says("cannot read");
        std::fs::write(&path, "hunter2").unwrap();
        says("16 to 4096 characters, this one 7");
        std::fs::write(&path, format!("{TEXT}\n")).unwrap();
        assert!(load().unwrap().unwrap().is_shown_by(format!("Bearer {TEXT}").as_bytes()));
    }
}
