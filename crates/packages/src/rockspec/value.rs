//! Tables of Lua as JSON: lists that may have names too, and the overrides of platforms.

use serde_json::{Map, Value};

/// Lays what stands for these platforms in `table.platforms` over the table, the general platform first, and removes `platforms`
/// (`platform_overrides` in `luarocks/rockspecs.lua`).
pub(super) fn apply_platforms(table: &mut Value, platforms: &[&str]) {
    let Some(overrides) = table.as_object_mut().and_then(|fields| fields.remove("platforms")) else { return };
    for platform in platforms {
        if let Some(over) = overrides.get(*platform) {
            merge(table, over);
        }
    }
}

/// Entries of `over` replace those of `base`; tables are merged in depth, lists entry by entry (`deep_merge` in `luarocks/core/util.lua`).
fn merge(base: &mut Value, over: &Value) {
    let over = match over {
        Value::Array(_) | Value::Object(_) => over,
        _ => {
            *base = over.clone();
            return;
        }
    };
    if let (Value::Array(base), Value::Array(over)) = (&mut *base, over) {
        for (i, value) in over.iter().enumerate() {
            match base.get_mut(i) {
                Some(slot) => merge(slot, value),
                None => base.push(value.clone()),
            }
        }
        return;
    }
    let mut merged = into_object(std::mem::take(base));
    for (key, value) in into_object(over.clone()) {
        match merged.get_mut(&key) {
            Some(slot) => merge(slot, &value),
            None => {
                merged.insert(key, value);
            }
        }
    }
    *base = Value::Object(merged);
}

/// A table with string keys: entry i of a list is called by its number in Lua, from 1.
fn into_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        Value::Array(list) => list.into_iter().enumerate().map(|(i, value)| ((i + 1).to_string(), value)).collect(),
        _ => Map::new(),
    }
}

/// The entries that have numbers, in order, and those that have names.
pub(super) fn parts(value: &Value) -> (Vec<&Value>, Vec<(&str, &Value)>) {
    match value {
        Value::Array(list) => (list.iter().collect(), Vec::new()),
        Value::Object(object) => {
            let mut numbered = Vec::new();
            let mut named = Vec::new();
            for (key, value) in object {
                match key.parse::<u64>() {
                    Ok(n) if n > 0 => numbered.push((n, value)),
                    _ => named.push((key.as_str(), value)),
                }
            }
            numbered.sort_by_key(|(n, _)| *n);
            (numbered.into_iter().map(|(_, value)| value).collect(), named)
        }
        _ => (Vec::new(), Vec::new()),
    }
}
