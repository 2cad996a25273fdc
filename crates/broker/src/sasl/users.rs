//! Who may log in, and what is kept of their passwords.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use ring::{digest, hmac, pbkdf2};

use crate::{Mechanism, Password, User};

/// How often a password is hashed for SCRAM: Kafka's default, and the least that RFC 7677 allows.
pub(crate) const ITERATIONS: NonZeroU32 = match NonZeroU32::new(4096) {
    Some(iterations) => iterations,
    None => NonZeroU32::MIN,
};

/// Everybody who may log in.
#[derive(Debug)]
pub(crate) struct Users {
    by_name: HashMap<Arc<str>, Known>,
    /// Makes salts, and for users that do not exist, keys that nobody has a password for.
    key: hmac::Key,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    password: Password,
    /// Derived at the first login: thousands of hashes, which a start should not wait for.
    sha256: OnceLock<Credential>,
    sha512: OnceLock<Credential>,
}

/// What SCRAM checks a proof against (RFC 5802, section 3).
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

impl Users {
    /// `secret` must be unpredictable; it may differ from start to start.
    pub(crate) fn new(users: &[User], secret: [u8; 32]) -> Self {
        let known = users.iter().map(|user| {
            let name: Arc<str> = user.name.as_str().into();
            let known = Known {
                name: Arc::clone(&name),
                password: user.password.clone(),
                sha256: OnceLock::new(),
                sha512: OnceLock::new(),
            };
            (name, known)
        });
        Self {
            by_name: known.collect(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        }
    }

    /// The user's name, if it is one's.
    pub(super) fn known(&self, name: &str) -> Option<Arc<str>> {
        self.by_name.get(name).map(|known| Arc::clone(&known.name))
    }

    /// The user, if the password is right. Takes as long for a name that nobody has.
    pub(super) fn verify(&self, name: &str, password: &str) -> Option<Arc<str>> {
        let known = self.by_name.get(name);
        let right = known.map_or("", |known| known.password.as_str());
        // Tags are compared in constant time, and show nothing of lengths.
        let tag = hmac::sign(&self.key, right.as_bytes());
        let same = hmac::verify(&self.key, password.as_bytes(), tag.as_ref()).is_ok();
        known.filter(|_| same).map(|known| Arc::clone(&known.name))
    }

    /// What `name`'s proof is checked against. A name that nobody has gets a credential, too, always
    /// the same and without a password, so that the answer does not tell.
    pub(super) fn credential(&self, name: &str, mechanism: Mechanism) -> Credential {
        let salt = self.derive("salt", name, mechanism);
        let Some(known) = self.by_name.get(name) else {
            return Credential {
                salt,
                stored_key: self.derive("stored", name, mechanism),
                server_key: self.derive("server", name, mechanism),
            };
        };
        let kept = match mechanism {
            Mechanism::ScramSha512 => &known.sha512,
            Mechanism::ScramSha256 | Mechanism::Plain => &known.sha256,
        };
        kept.get_or_init(|| Credential::new(known.password.as_str(), salt, mechanism))
            .clone()
    }

    fn derive(&self, what: &str, name: &str, mechanism: Mechanism) -> Vec<u8> {
        let text = format!("{what} {mechanism} {name}");
        hmac::sign(&self.key, text.as_bytes()).as_ref().to_vec()
    }
}

impl Credential {
    fn new(password: &str, salt: Vec<u8>, mechanism: Mechanism) -> Self {
        let hash = Hash::of(mechanism);
        let salted = hash.salted(password, &salt, ITERATIONS);
        let client_key = hash.hmac(&salted, b"Client Key");
        Self {
            stored_key: hash.digest(&client_key),
            server_key: hash.hmac(&salted, b"Server Key"),
            salt,
        }
    }
}

/// The functions that a mechanism is built from.
#[derive(Clone, Copy)]
pub(super) struct Hash {
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

impl Hash {
    pub(super) fn of(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::ScramSha512 => Self {
                digest: &digest::SHA512,
                hmac: hmac::HMAC_SHA512,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512,
            },
            Mechanism::ScramSha256 | Mechanism::Plain => Self {
                digest: &digest::SHA256,
                hmac: hmac::HMAC_SHA256,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
            },
        }
    }

    pub(super) fn digest(self, bytes: &[u8]) -> Vec<u8> {
        digest::digest(self.digest, bytes).as_ref().to_vec()
    }

    pub(super) fn hmac(self, key: &[u8], bytes: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(self.hmac, key);
        hmac::sign(&key, bytes).as_ref().to_vec()
    }

    pub(super) fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let mut salted = vec![0; self.digest.output_len()];
        pbkdf2::derive(
            self.pbkdf2,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        salted
    }
}
