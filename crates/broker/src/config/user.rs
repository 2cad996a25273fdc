//! Who may log in.

use std::fmt;

/// Somebody who may log in on listeners with SASL.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct User {
    /// The name, as clients give it in `sasl.username`.
    pub name: String,
    /// The password, as clients give it in `sasl.password`.
    pub password: Password,
}

impl User {
    /// A user with this name and password.
    pub fn new(name: impl Into<String>, password: impl Into<Password>) -> Self {
        Self {
            name: name.into(),
            password: password.into(),
        }
    }
}

/// A secret that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Password {
    fn from(secret: T) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show_itself() {
        let shown = format!("{:?}", User::new("orders", "s3cret"));
        assert!(shown.contains("orders"));
        assert!(!shown.contains("s3cret"));
    }
}
