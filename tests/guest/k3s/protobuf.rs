//! Just enough protobuf to read the config map that a newer kubectl sends: since 1.33 it prefers this form to JSON.

use serde_json::{Map, Value, json};

/// Kubernetes puts this before a `runtime.Unknown`, whose second field is the object.
const MAGIC: &[u8] = b"k8s\0";

/// A config map out of a request's body, in the form that JSON would have given it.
pub(crate) fn config_map(body: &[u8]) -> Option<Value> {
    let object = fields(body.strip_prefix(MAGIC)?)?
        .into_iter()
        .find(|(number, _)| *number == 2)?
        .1;
    let mut metadata = json!({});
    let mut data = Map::new();
    for (number, bytes) in fields(object)? {
        match number {
            1 => {
                for (key, number) in [("name", 1), ("namespace", 3)] {
                    if let Some((_, value)) =
                        fields(bytes)?.into_iter().find(|field| field.0 == number)
                    {
                        metadata[key] = json!(std::str::from_utf8(value).ok()?);
                    }
                }
            }
            2 => {
                let entry = fields(bytes)?;
                let part = |number| {
                    entry
                        .iter()
                        .find(|field| field.0 == number)
                        .map_or(&b""[..], |field| field.1)
                };
                data.insert(
                    String::from_utf8(part(1).into()).ok()?,
                    json!(std::str::from_utf8(part(2)).ok()?),
                );
            }
            _ => {}
        }
    }
    Some(json!({ "metadata": metadata, "data": data }))
}

/// The length-delimited fields of a message; numbers are skipped.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (field, rest) = bytes.split_at_checked(length)?;
                found.push((tag >> 3, field));
                bytes = rest;
            }
            _ => return None,
        }
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
