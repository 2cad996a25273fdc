//! What is asked for, checked.

use serde::Deserialize;

use crate::web::Invalid;

/// The longest address (RFC 5321).
const MAX_EMAIL: usize = 254;
/// The longest name, in characters.
const MAX_NAME: usize = 200;

/// The body of `POST /users`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// Unique, whatever the case of its letters.
    pub(crate) email: String,
    pub(crate) name: String,
}

impl NewUser {
    /// Checks a request.
    ///
    /// # Errors
    /// [`Invalid`], naming the field.
    pub(crate) fn check(self) -> Result<Self, Invalid> {
        if !is_address(&self.email) {
            let what = format!(
                "must be an address such as \"a@example.org\", of at most {MAX_EMAIL} bytes"
            );
            return Err(Invalid::new("email", what));
        }
        let length = self.name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || self.name.chars().any(char::is_control) {
            let what =
                format!("must have 1 to {MAX_NAME} characters, none of them a control character");
            return Err(Invalid::new("name", what));
        }
        Ok(self)
    }
}

/// One `@` with something on both sides; whether mail arrives there, only mail can tell.
fn is_address(email: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control())
    };
    let parts = email.split_once('@');
    email.len() <= MAX_EMAIL && parts.is_some_and(|(local, domain)| plain(local) && plain(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_something_on_both_sides_of_one_at() {
        for email in ["a@b", "Ä.b+c@example.org"] {
            assert!(is_address(email), "{email}");
        }
        for email in ["", "a", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n"] {
            assert!(!is_address(email), "{email}");
        }
        assert!(!is_address(&format!("{}@b", "a".repeat(MAX_EMAIL))));
    }

    #[test]
    fn a_name_is_neither_empty_nor_endless() {
        for (name, fine) in [
            ("A", true),
            ("", false),
            ("a\0", false),
            (&"x".repeat(201), false),
        ] {
            let email = "a@b".to_owned();
            let user = NewUser {
                email,
                name: name.to_owned(),
            };
            assert_eq!(user.check().is_ok(), fine, "{name:?}");
        }
    }
}
