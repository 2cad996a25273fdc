//! With tokio-postgres, on one connection, its statements prepared.

use std::time::SystemTime;

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Statement};

use super::{ANSWERS, Books, answer, answer_headers, event_id, requested};
use crate::Outcome;
use crate::transaction::store;

const SCHEMA: &str = "
    CREATE TABLE stock (product BIGINT PRIMARY KEY, reserved BIGINT NOT NULL);
    CREATE TABLE inbox (
        consumer_group TEXT NOT NULL,
        event BYTEA NOT NULL,
        handled_at TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (consumer_group, event)
    );
    CREATE TABLE outbox (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic TEXT NOT NULL,
        key BYTEA,
        value BYTEA,
        headers BYTEA NOT NULL,
        created_at TIMESTAMPTZ NOT NULL
    );
";

const REMEMBER: &str = "INSERT INTO inbox VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const RESERVE: &str = "UPDATE stock SET reserved = reserved + $2 WHERE product = $1";
const EMIT: &str =
    "INSERT INTO outbox (topic, key, value, headers, created_at) VALUES ($1, $2, $3, $4, $5)";

pub(super) struct Schema {
    runtime: Runtime,
    client: Client,
    remember: Statement,
    reserve: Statement,
    emit: Statement,
}

impl Schema {
    pub(super) fn create(server: &str, name: &str, products: u64) -> Outcome<Self> {
        let (runtime, client) = store::connect(server)?;
        let products = products as i64;
        let (remember, reserve, emit) = runtime.block_on(async {
            let schema = format!("CREATE SCHEMA \"{name}\"; SET search_path = \"{name}\"; {SCHEMA}");
            client.batch_execute(&schema).await?;
            let stock = "INSERT INTO stock SELECT product, 0 FROM generate_series(0, $1::bigint - 1) AS product";
            client.execute(stock, &[&products]).await?;
            let prepared = tokio::try_join!(
                client.prepare(REMEMBER),
                client.prepare(RESERVE),
                client.prepare(EMIT)
            );
            prepared
        })?;
        Ok(Self {
            runtime,
            client,
            remember,
            reserve,
            emit,
        })
    }
}

impl Books for Schema {
    fn handle(&mut self, group: &str, record: &BorrowedMessage<'_>) -> Outcome<()> {
        let event = requested(record)?;
        let now = SystemTime::now();
        let id = event_id(record)?;
        self.runtime.block_on(async {
            let transaction = self.client.transaction().await?;
            let event_id: &[u8] = id.as_bytes();
            let marked = transaction
                .execute(&self.remember, &[&group, &event_id, &now])
                .await?;
            if marked == 1 {
                transaction
                    .execute(&self.reserve, &[&event.product, &event.quantity])
                    .await?;
                let (answer, headers) = (answer(event)?, answer_headers(record)?);
                transaction
                    .execute(
                        &self.emit,
                        &[&ANSWERS, &record.key(), &answer, &headers, &now],
                    )
                    .await?;
            }
            Ok(transaction.commit().await?)
        })
    }
}
