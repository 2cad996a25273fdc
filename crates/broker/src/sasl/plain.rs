//! PLAIN (RFC 4616): `[act as] NUL name NUL password`.

use super::{Denied, Step, Users};

pub(super) fn check(users: &Users, token: &[u8]) -> Result<Step, Denied> {
    let malformed = || Denied::because("the token is not of three parts");
    let text = std::str::from_utf8(token).map_err(|_| malformed())?;
    let mut parts = text.split('\0');
    let (Some(act_as), Some(name), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    if !act_as.is_empty() && act_as != name {
        return Err(Denied::because("it asks to act as somebody else"));
    }
    match users.verify(name, password) {
        Some(user) => Ok(Step::Proved(user, Vec::new())),
        None => Err(Denied {
            user: users.known(name),
            why: "wrong name or password",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::User;

    fn users() -> Users {
        Users::new(
            &[User::new("orders", "s3cret"), User::new("empty", "x")],
            [7; 32],
        )
    }

    #[test]
    fn the_right_password_lets_in() {
        for token in ["\0orders\0s3cret", "orders\0orders\0s3cret"] {
            let proved = check(&users(), token.as_bytes());
            assert_eq!(proved, Ok(Step::Proved("orders".into(), Vec::new())));
        }
    }

    #[test]
    fn anything_else_does_not() {
        for token in [
            "",
            "orders",
            "\0orders",
            "\0orders\0",
            "\0orders\0s3cre",
            "\0orders\0s3cretx",
            "\0nobody\0s3cret",
            "\0\0",
            "\0\0s3cret",
            "admin\0orders\0s3cret",
            "\0orders\0s3cret\0",
        ] {
            assert!(check(&users(), token.as_bytes()).is_err(), "{token:?}");
        }
        assert!(check(&users(), &[0, 0xff, 0, 0xff]).is_err());
    }

    #[test]
    fn a_refusal_names_users_only() {
        let denied = check(&users(), b"\0orders\0wrong").unwrap_err();
        assert_eq!(denied.user.as_deref(), Some("orders"));
        let denied = check(&users(), b"\0s3cret\0orders").unwrap_err();
        assert_eq!(denied.user, None);
    }
}
