//! What is settled beyond a position, kept in the listener's database when it has no room in the
//! commit.

use ackwell::container::{Origin, Snapshot, SnapshotStore, StoreError, Wanted};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::database::Database;
use crate::error::Result;
use crate::params;

/// Keeps snapshots in the table `ackwell_snapshots`: two rows a partition at most.
#[derive(Debug)]
pub(crate) struct Kept(pub(crate) Database);

impl Kept {
    async fn write_all(&self, snapshots: &[Snapshot]) -> Result<Vec<Vec<u8>>> {
        let mut tx = self.0.begin();
        for Snapshot {
            origin,
            slot,
            bytes,
        } in snapshots
        {
            tx.execute(
                "INSERT INTO ackwell_snapshots \
                 (consumer_group, topic, partition, slot, snapshot, written_at) \
                 VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (consumer_group, topic, partition, slot) \
                 DO UPDATE SET snapshot = excluded.snapshot, written_at = excluded.written_at",
                params![
                    &*origin.group,
                    &*origin.topic,
                    i64::from(origin.partition),
                    i64::from(*slot),
                    bytes.as_slice(),
                    Timestamp::now()
                ],
            )
            .await?;
        }
        tx.commit().await?;
        // Group, topic, partition and slot are all that it takes.
        Ok(vec![Vec::new(); snapshots.len()])
    }

    async fn read_all(&self, wanted: &[Wanted]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut found = Vec::with_capacity(wanted.len());
        for Wanted { origin, slot, .. } in wanted {
            let row = self
                .0
                .query_opt(
                    "SELECT snapshot FROM ackwell_snapshots \
                     WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND slot = $4",
                    params![
                        &*origin.group,
                        &*origin.topic,
                        i64::from(origin.partition),
                        i64::from(*slot)
                    ],
                )
                .await?;
            found.push(row.map(|row| row.get("snapshot")).transpose()?);
        }
        Ok(found)
    }

    async fn remove_all(&self, origins: &[Origin]) -> Result<()> {
        let mut tx = self.0.begin();
        for origin in origins {
            tx.execute(
                "DELETE FROM ackwell_snapshots \
                 WHERE consumer_group = $1 AND topic = $2 AND partition = $3",
                params![&*origin.group, &*origin.topic, i64::from(origin.partition)],
            )
            .await?;
        }
        tx.commit().await
    }
}

impl SnapshotStore for Kept {
    fn write<'a>(
        &'a self,
        snapshots: &'a [Snapshot],
    ) -> BoxFuture<'a, Result<Vec<Vec<u8>>, StoreError>> {
        async { Ok(self.write_all(snapshots).await?) }.boxed()
    }

    fn read<'a>(
        &'a self,
        wanted: &'a [Wanted],
    ) -> BoxFuture<'a, Result<Vec<Option<Vec<u8>>>, StoreError>> {
        async { Ok(self.read_all(wanted).await?) }.boxed()
    }

    fn remove<'a>(&'a self, origins: &'a [Origin]) -> BoxFuture<'a, Result<(), StoreError>> {
        async { Ok(self.remove_all(origins).await?) }.boxed()
    }
}
