//! What listeners and users must be like, told before anything is begun.

use std::collections::HashSet;

use super::{Config, Listener, Mechanism};
use crate::Error;
use crate::error::Kind;

impl Config {
    /// The listeners to open: those set, or the plain one.
    ///
    /// # Errors
    /// When they contradict each other or the users, each with a mend.
    pub(crate) fn effective_listeners(&self) -> Result<Vec<Listener>, Error> {
        self.check_users()?;
        if self.listeners.is_empty() {
            let mut plain = Listener::new("plain", self.listen.clone());
            plain.advertised.clone_from(&self.advertised);
            return Ok(vec![plain]);
        }
        if self.listen != Self::LISTEN || self.advertised.is_some() {
            return Err(wrong(
                "listen and advertised are for the one plain listener; with listeners of their own, \
                 set both there",
            ));
        }
        let mut names = HashSet::new();
        for listener in &self.listeners {
            if listener.name.is_empty() || !names.insert(&listener.name) {
                return Err(wrong(&format!(
                    "listener {:?}: each needs a name of its own",
                    listener.name
                )));
            }
            self.check_logins(listener)?;
        }
        Ok(self.listeners.clone())
    }

    fn check_users(&self) -> Result<(), Error> {
        let mut names = HashSet::new();
        for user in &self.users {
            let name = &user.name;
            let printable = !name.is_empty() && !name.contains(char::is_control);
            if !printable || name == ANONYMOUS {
                return Err(wrong(&format!("{name:?} can't be a user's name")));
            }
            if !names.insert(name) {
                return Err(wrong(&format!("user {name} is there twice")));
            }
            let password = user.password.as_str();
            if password.is_empty() || password.contains('\0') {
                return Err(wrong(&format!(
                    "user {name}: the password must not be empty and can't hold a zero byte"
                )));
            }
        }
        Ok(())
    }

    fn check_logins(&self, listener: &Listener) -> Result<(), Error> {
        let name = &listener.name;
        if !listener.sasl.is_empty() && self.users.is_empty() {
            return Err(wrong(&format!(
                "listener {name} asks for a login, and there are no users; add some"
            )));
        }
        let asked: HashSet<Mechanism> = listener.sasl.iter().copied().collect();
        if asked.len() != listener.sasl.len() {
            return Err(wrong(&format!("listener {name} names a mechanism twice")));
        }
        Ok(())
    }
}

/// Kafka's name for whoever was not asked.
pub(super) const ANONYMOUS: &str = "ANONYMOUS";

fn wrong(what: &str) -> Error {
    Error::new(Kind::Config, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tls, User};

    fn refused(adjust: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::new("unused");
        adjust(&mut config);
        let error = config.effective_listeners().unwrap_err();
        assert!(error.is_config());
        error.to_string()
    }

    fn login(name: &str) -> Listener {
        let mut listener = Listener::new(name, "127.0.0.1:0");
        listener.sasl = vec![Mechanism::Plain];
        listener
    }

    #[test]
    fn without_listeners_of_its_own_there_is_one_plain_one() {
        let mut config = Config::new("unused");
        config.advertised = Some("broker.lan:9092".to_owned());
        let listeners = config.effective_listeners().unwrap();
        assert_eq!(listeners.len(), 1);
        assert_eq!(listeners[0].listen, "127.0.0.1:9092");
        assert_eq!(listeners[0].advertised, config.advertised);
        assert_eq!(listeners[0].protocol(), "PLAINTEXT");
    }

    #[test]
    fn a_listener_is_named_as_clients_name_its_protocol() {
        let mut listener = login("in");
        assert_eq!(listener.protocol(), "SASL_PLAINTEXT");
        listener.tls = Some(Tls::new("c", "k"));
        assert_eq!(listener.protocol(), "SASL_SSL");
        listener.sasl.clear();
        assert_eq!(listener.protocol(), "SSL");
    }

    #[test]
    fn contradictions_are_told() {
        let told = refused(|config| {
            config.listeners = vec![Listener::new("in", "127.0.0.1:0")];
            config.listen = "127.0.0.1:1".to_owned();
        });
        assert!(told.contains("set both there"), "{told}");
        let told = refused(|config| config.listeners = vec![login("in")]);
        assert!(told.contains("there are no users"), "{told}");
        let told = refused(|config| {
            config.users = vec![User::new("a", "x")];
            config.listeners = vec![login("in"), login("in")];
        });
        assert!(told.contains("a name of its own"), "{told}");
        let told = refused(|config| {
            config.users = vec![User::new("a", "x")];
            config.listeners = vec![login("in")];
            config.listeners[0].sasl.push(Mechanism::Plain);
        });
        assert!(told.contains("twice"), "{told}");
    }

    #[test]
    fn users_need_a_name_and_a_password_each() {
        for (name, password) in [
            ("", "x"),
            ("a\nb", "x"),
            ("ANONYMOUS", "x"),
            ("a", ""),
            ("a", "x\0"),
        ] {
            refused(|config| config.users = vec![User::new(name, password)]);
        }
        let told = refused(|config| config.users = vec![User::new("a", "x"), User::new("a", "y")]);
        assert!(told.contains("twice"), "{told}");
    }
}
