//! Records that no client library would write: sent as bytes over a connection of one's own.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Writes one record without a key, whose header is called `name`, to partition 0.
pub fn produce(servers: &str, topic: &str, value: &[u8], name: &[u8]) {
    let answer = ask(servers, &request(topic, &batch(&record(value, name))));
    // Correlation id, one topic with its name, one partition with its number, the error.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "the broker takes the record");
}

/// Removes a member from its group, if the broker coordinates it.
pub fn remove_member(server: &str, group: &str, id: &str) {
    // LeaveGroup, version 3: one member, without an instance id.
    let mut bytes = Vec::new();
    for number in [13_i16, 3] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(7_i32.to_be_bytes());
    text(&mut bytes, "raw");
    text(&mut bytes, group);
    bytes.extend(1_i32.to_be_bytes());
    text(&mut bytes, id);
    bytes.extend((-1_i16).to_be_bytes());
    ask(server, &bytes);
}

/// Sends one request and awaits its answer.
fn ask(server: &str, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).expect("a connection");
    let size = u32::try_from(request.len()).expect("a size").to_be_bytes();
    stream.write_all(&size).expect("the size is sent");
    stream.write_all(request).expect("the request is sent");
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).expect("the whole answer");
    answer
}

/// Produce, version 3.
fn request(topic: &str, batch: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [0_i16, 3] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(7_i32.to_be_bytes());
    text(&mut bytes, "raw");
    // No transaction, acknowledged by all.
    bytes.extend((-1_i16).to_be_bytes());
    bytes.extend((-1_i16).to_be_bytes());
    bytes.extend(10_000_i32.to_be_bytes());
    bytes.extend(1_i32.to_be_bytes());
    text(&mut bytes, topic);
    bytes.extend(1_i32.to_be_bytes());
    bytes.extend(0_i32.to_be_bytes());
    bytes.extend(i32::try_from(batch.len()).expect("a size").to_be_bytes());
    bytes.extend(batch);
    bytes
}

pub(super) fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(i16::try_from(text.len()).expect("a size").to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// A batch of format 2 with one record.
fn batch(record: &[u8]) -> Vec<u8> {
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes());
    checked.extend(0_i32.to_be_bytes());
    for _ in 0..2 {
        checked.extend(1_700_000_000_000_i64.to_be_bytes());
    }
    checked.extend((-1_i64).to_be_bytes());
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(1_i32.to_be_bytes());
    checked.extend(record);
    let mut bytes = Vec::new();
    bytes.extend(0_i64.to_be_bytes());
    let length = i32::try_from(checked.len() + 9).expect("a size");
    bytes.extend(length.to_be_bytes());
    bytes.extend((-1_i32).to_be_bytes());
    bytes.push(2);
    bytes.extend(crc32c::crc32c(&checked).to_be_bytes());
    bytes.extend(checked);
    bytes
}

fn record(value: &[u8], name: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    for number in [0, 0, -1] {
        varint(&mut body, number);
    }
    sized(&mut body, value);
    varint(&mut body, 1);
    sized(&mut body, name);
    sized(&mut body, b"v");
    let mut record = Vec::new();
    sized(&mut record, &body);
    record
}

fn sized(bytes: &mut Vec<u8>, part: &[u8]) {
    varint(bytes, i64::try_from(part.len()).expect("a size"));
    bytes.extend(part);
}

fn varint(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}
