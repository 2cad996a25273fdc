//! What listeners and users must be like, told before anything is begun.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::{Config, Listener, Mechanism, Rule};
use crate::Error;
use crate::error::Kind;

impl Config {
    /// The listeners to open: those set, or the plain one.
    ///
    /// # Errors
    /// When they contradict each other or the users, each with a mend.
    pub(crate) fn effective_listeners(&self) -> Result<Vec<Listener>, Error> {
        self.check_users()?;
        self.check_access()?;
        self.check_somebody_asks()?;
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

    /// A rule that can never apply is a mistake in writing, and somebody counts on it.
    fn check_access(&self) -> Result<(), Error> {
        let access = &self.access;
        if !access.ruled && (!access.rules.is_empty() || !access.super_users.is_empty()) {
            return Err(wrong(
                "access has rules or super users, and rules do not decide: set access.ruled",
            ));
        }
        let ruled = access.rules.iter().map(|rule| &rule.user);
        for user in access
            .super_users
            .iter()
            .chain(ruled.filter(|user| *user != "*"))
        {
            if user != ANONYMOUS && !self.users.iter().any(|known| known.name == *user) {
                return Err(wrong(&format!(
                    "access names user {user}, who is not one of the users"
                )));
            }
        }
        for rule in &access.rules {
            check_rule(rule)?;
        }
        Ok(())
    }

    /// Users whom nobody asks for: everybody would be `ANONYMOUS`, and who wrote them down counts on
    /// the opposite. Rules name users that are there, so rules for them are found out here as well.
    fn check_somebody_asks(&self) -> Result<(), Error> {
        let asked = self
            .listeners
            .iter()
            .any(|listener| !listener.sasl.is_empty());
        match self.users.first() {
            Some(user) if !asked => Err(wrong(&format!(
                "there are users, such as {}, and no listener asks for a login, so that everybody who \
                 connects is {ANONYMOUS}: give a listener sasl, for instance sasl = [\"SCRAM-SHA-512\"], \
                 or take the users out",
                user.name
            ))),
            _ => Ok(()),
        }
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

/// What the person on call should know of a listener at its address, and nobody has to be refused for.
pub(crate) fn warning(listener: &Listener, address: SocketAddr) -> Option<&'static str> {
    if address.ip().is_loopback() {
        return None;
    }
    let certified = listener
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_authorities.is_some());
    if listener.sasl.is_empty() && !certified {
        return Some(
            "nobody is asked who they are, beyond loopback: everybody who connects is ANONYMOUS",
        );
    }
    (listener.tls.is_none() && listener.sasl.contains(&Mechanism::Plain))
        .then_some("passwords cross the network as they are: PLAIN without TLS, beyond loopback")
}

fn check_rule(rule: &Rule) -> Result<(), Error> {
    let user = &rule.user;
    let names = [&rule.topics, &rule.groups, &rule.transactional_ids];
    if rule.may.is_empty() || (!rule.cluster && names.iter().all(|names| names.is_empty())) {
        return Err(wrong(&format!(
            "an access rule of user {user} allows nothing: it needs rights, and what they are on"
        )));
    }
    for name in names.into_iter().flatten() {
        let before = name.strip_suffix('*').unwrap_or(name);
        if name.is_empty() || before.contains('*') {
            return Err(wrong(&format!(
                "an access rule of user {user} names {name:?}: a name, or how names begin and a `*`"
            )));
        }
    }
    Ok(())
}

/// Kafka's name for whoever was not asked.
pub(crate) const ANONYMOUS: &str = "ANONYMOUS";

fn wrong(what: &str) -> Error {
    Error::new(Kind::Config, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Right, Tls, User};

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
    fn users_whom_no_listener_asks_for_are_told() {
        let rule = || {
            let mut rule = Rule::new("orders", [Right::Read]);
            rule.topics = vec!["orders".to_owned()];
            rule
        };
        let users = |config: &mut Config| config.users = vec![User::new("orders", "x")];
        let told = refused(users);
        assert!(told.contains("no listener asks for a login"), "{told}");
        let told = refused(|config| {
            users(config);
            config.access = Access::ruled();
            config.access.rules = vec![rule()];
            config.listeners = vec![Listener::new("in", "127.0.0.1:0")];
        });
        assert!(told.contains("no listener asks for a login"), "{told}");
        let mut config = Config::new("unused");
        users(&mut config);
        config.listeners = vec![Listener::new("in", "127.0.0.1:0"), login("out")];
        config.effective_listeners().unwrap();
    }

    #[test]
    fn an_open_listener_beyond_loopback_is_warned_of() {
        let (near, far) = (
            "[::1]:9092".parse().unwrap(),
            "0.0.0.0:9092".parse().unwrap(),
        );
        let open = Listener::new("in", "unused");
        let told = warning(&open, far).unwrap();
        assert!(told.contains("ANONYMOUS"), "{told}");
        assert_eq!(warning(&open, near), None);
        let plain = login("in");
        assert!(warning(&plain, far).unwrap().contains("PLAIN without TLS"));
        let mut safe = login("in");
        safe.tls = Some(Tls::new("c", "k"));
        assert_eq!(warning(&safe, far), None);
        safe.sasl.clear();
        assert!(
            warning(&safe, far).is_some(),
            "encrypted, and open to everybody"
        );
        safe.tls.as_mut().unwrap().client_authorities = Some("ca".into());
        assert_eq!(warning(&safe, far), None);
    }

    #[test]
    fn rules_that_cannot_apply_are_told() {
        let ruled = |rule: Rule| {
            refused(|config| {
                config.users = vec![User::new("orders", "x")];
                config.access = Access::ruled();
                config.access.rules = vec![rule];
            })
        };
        let named = |user: &str, topic: &str| {
            let mut rule = Rule::new(user, [Right::Read]);
            rule.topics = vec![topic.to_owned()];
            rule
        };
        assert!(ruled(named("order", "a")).contains("not one of the users"));
        assert!(ruled(Rule::new("orders", [Right::Read])).contains("allows nothing"));
        assert!(ruled(named("orders", "a*b")).contains("how names begin"));
        assert!(ruled(named("orders", "")).contains("how names begin"));
        let told = refused(|config| config.access.super_users = vec!["admin".to_owned()]);
        assert!(told.contains("access.ruled"), "{told}");
        let mut config = Config::new("unused");
        config.access = Access::ruled();
        config.access.rules = vec![named("*", "a*"), named("ANONYMOUS", "*")];
        config.effective_listeners().unwrap();
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
