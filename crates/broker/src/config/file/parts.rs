//! What stands in the file, section by section. Every key may be left out unless nothing works
//! without it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::value::{Kept, Time, Written};
use crate::{
    Access, Cleaning, Config, Flush, Groups, Limits, Listener, Mechanism, Right, Rule, Tls,
    Transactions,
};

/// A section, or the top of the file, whose keys have the names of fields; those that need more than a
/// value of their own follow. All fields have to be there: one that is forgotten does not compile.
macro_rules! section {
    ($name:ident for $target:ident { $($key:ident: $form:ty,)* } $(and { $($more:ident: $type:ty,)* })?) => {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            $($key: Option<$form>,)*
            $($(pub(super) $more: $type,)*)?
        }

        impl $name {
            fn fields(&mut self, target: &mut $target) {
                let $target { $($key: _,)* $($($more: _,)*)? } = target;
                $(if let Some(value) = self.$key.take() {
                    target.$key = value.into();
                })*
            }
        }
    };
}

section! {
    File for Config {
        listen: String,
        advertised: String,
        flush: Written<Flush>,
        auto_create_topics: bool,
        default_partitions: i32,
        retention: Kept,
        retention_bytes: u64,
        segment_bytes: u32,
        retention_check: Time,
    } and {
        folder: Option<PathBuf>,
        cleaning: CleaningPart,
        groups: GroupsPart,
        transactions: TransactionsPart,
        limits: LimitsPart,
        listeners: Vec<ListenerPart>,
        users: Vec<UserPart>,
        access: Option<AccessPart>,
    }
}

section! {
    CleaningPart for Cleaning {
        interval: Time,
        memory_max: usize,
        bytes_per_second: u64,
    }
}

section! {
    GroupsPart for Groups {
        initial_rebalance_delay: Time,
        session_timeout_min: Time,
        session_timeout_max: Time,
        members_max: usize,
        consumer_heartbeat_interval: Time,
        consumer_session_timeout: Time,
        offset_metadata_bytes_max: usize,
        offsets_retention: Time,
        offsets_partitions: i32,
    }
}

section! {
    TransactionsPart for Transactions {
        timeout_max: Time,
        id_expiration: Time,
        state_partitions: i32,
    }
}

section! {
    LimitsPart for Limits {
        connections_max: usize,
        connections_per_address_max: usize,
        memory_max: usize,
        memory_wait_max: Time,
        waiting_partitions_max: usize,
        request_bytes_max: usize,
        request_elements_max: usize,
        in_flight_max: usize,
        unsent_bytes_max: usize,
        fetch_bytes_max: usize,
        fetch_wait_max: Time,
        idle_max: Time,
        login_max: Time,
        drain_max: Time,
        partitions_max: i32,
    }
}

impl File {
    /// Puts everything but the folder and the users, which need more than the file, into `config`.
    pub(super) fn apply(mut self, config: &mut Config, base: &Path) {
        self.fields(config);
        self.cleaning.fields(&mut config.cleaning);
        self.groups.fields(&mut config.groups);
        self.transactions.fields(&mut config.transactions);
        self.limits.fields(&mut config.limits);
        let listeners = self.listeners.into_iter();
        config.listeners = listeners.map(|part| part.listener(base)).collect();
        if let Some(access) = self.access {
            config.access = access.access();
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerPart {
    name: String,
    listen: String,
    advertised: Option<String>,
    tls: Option<TlsPart>,
    #[serde(default)]
    sasl: Vec<Written<Mechanism>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsPart {
    certificate: PathBuf,
    key: PathBuf,
    client_authorities: Option<PathBuf>,
}

impl ListenerPart {
    fn listener(self, base: &Path) -> Listener {
        Listener {
            name: self.name,
            listen: self.listen,
            advertised: self.advertised,
            tls: self.tls.map(|part| Tls {
                certificate: base.join(part.certificate),
                key: base.join(part.key),
                client_authorities: part.client_authorities.map(|path| base.join(path)),
            }),
            sasl: self.sasl.into_iter().map(|written| written.0).collect(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserPart {
    pub(super) name: String,
    pub(super) password: Secret,
}

/// Where a password is.
pub(super) enum Secret {
    Env(String),
    File(PathBuf),
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl SecretVisitor {
    const MEND: &str = "a password does not stand in this file, but where it says: \
        { env = \"VARIABLE\" } or { file = \"PATH\" }";
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ env = \"VARIABLE\" } or { file = \"PATH\" }")
    }

    fn visit_str<E: Error>(self, _secret: &str) -> Result<Secret, E> {
        Err(E::custom(Self::MEND))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let secret = match map.next_key::<String>()?.as_deref() {
            Some("env") => Secret::Env(map.next_value()?),
            Some("file") => Secret::File(map.next_value()?),
            _ => return Err(A::Error::custom(Self::MEND)),
        };
        match map.next_key::<String>()? {
            None => Ok(secret),
            Some(_) => Err(A::Error::custom(Self::MEND)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessPart {
    #[serde(default)]
    super_users: Vec<String>,
    #[serde(default)]
    rules: Vec<RulePart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulePart {
    user: String,
    may: Vec<RightPart>,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    transactional_ids: Vec<String>,
    #[serde(default)]
    cluster: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RightPart {
    Read,
    Write,
    Admin,
}

impl AccessPart {
    fn access(self) -> Access {
        Access {
            ruled: true,
            super_users: self.super_users,
            rules: self.rules.into_iter().map(RulePart::rule).collect(),
        }
    }
}

impl RulePart {
    fn rule(self) -> Rule {
        let may = self.may.iter().map(|right| match right {
            RightPart::Read => Right::Read,
            RightPart::Write => Right::Write,
            RightPart::Admin => Right::Admin,
        });
        Rule {
            user: self.user,
            may: may.collect(),
            topics: self.topics,
            groups: self.groups,
            transactional_ids: self.transactional_ids,
            cluster: self.cluster,
        }
    }
}
