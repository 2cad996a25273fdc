//! Which right is missing, and the command that grants it.
//!
//! A broker that enforces rights (Kafka's `StandardAuthorizer`) says that one is missing, but not
//! which, nor to whom. Whoever is on call gets the whole command instead.

use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode as Code;

/// Whether the broker refuses something for want of a right.
pub(crate) fn is_missing(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
    )
}

/// To whom rights are granted, and where.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    principal: String,
    servers: String,
}

impl Rights {
    /// Those of a client with these settings. With SASL the principal is its user; with TLS it is
    /// what the broker makes of its certificate.
    pub(crate) fn of(client: &ClientConfig) -> Self {
        let user = client.get("sasl.username");
        Rights {
            principal: user.map_or("User:<this client>".to_owned(), |user| {
                format!("User:{user}")
            }),
            servers: client.get("bootstrap.servers").unwrap_or("..").to_owned(),
        }
    }

    /// What reading topics takes. `Read` includes `Describe`.
    pub(crate) fn to_read<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> String {
        let topics: Vec<_> = topics.into_iter().collect();
        let options: String = topics
            .iter()
            .map(|name| format!(" --topic {name}"))
            .collect();
        let which = topics.join(", ");
        self.grant("Read", &format!("topic {which}"), &options)
    }

    /// What writing to a topic takes. `Write` includes `Describe`.
    pub(crate) fn to_write(&self, topic: &str) -> String {
        self.grant(
            "Write",
            &format!("topic {topic}"),
            &format!(" --topic {topic}"),
        )
    }

    /// What creating a topic takes.
    pub(crate) fn to_create(&self, topic: &str) -> String {
        let granted = self.grant(
            "Create",
            &format!("topic {topic}"),
            &format!(" --topic {topic}"),
        );
        format!("{granted}; or create it and set `topics.create = false`")
    }

    /// What being a member of a group takes.
    pub(crate) fn to_join(&self, group: &str) -> String {
        self.grant(
            "Read",
            &format!("group {group}"),
            &format!(" --group {group}"),
        )
    }

    fn grant(&self, right: &str, on: &str, options: &str) -> String {
        let Rights { principal, servers } = self;
        format!(
            "grant this client the right `{right}` on the {on}: \
             kafka-acls.sh --bootstrap-server {servers} --add --allow-principal {principal} \
             --operation {right}{options}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_told_with_the_command_that_grants_it() {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", "kafka:9092");
        client.set("sasl.username", "inventory");
        let rights = Rights::of(&client);
        let told = rights.to_read(["orders", "payments"]);
        assert!(
            told.contains("`Read` on the topic orders, payments"),
            "{told}"
        );
        let command = "kafka-acls.sh --bootstrap-server kafka:9092 --add \
                       --allow-principal User:inventory --operation Read --topic orders --topic payments";
        assert!(told.ends_with(command), "{told}");
        assert!(rights.to_join("g").ends_with("--operation Read --group g"));
        assert!(rights.to_create("t").contains("topics.create"));
    }

    #[test]
    fn who_the_client_is_may_be_known_to_the_broker_alone() {
        let told = Rights::of(&ClientConfig::new()).to_write("t");
        assert!(told.contains("User:<this client>"), "{told}");
    }
}
