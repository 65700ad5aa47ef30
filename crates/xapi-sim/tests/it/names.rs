//! Every call that is named anywhere: in the client, the driver and this server. It is in the data model, and the oldest release that is meant to work has it.

use std::{fs, path::Path};
use vmoon_xapi::model::{Model, Release};

/// Calls that hosts of XCP-ng 8.2 have not, and what is done without them.
const NEWER: &[(&str, &str)] = &[];

/// The texts in quotes that are names of calls: `"Class.verb"`.
fn named(text: &str) -> Vec<String> {
    let is_call = |text: &&str| {
        let bare = text.strip_prefix("Async.").unwrap_or(text);
        let known = bare
            .split_once('.')
            .is_some_and(|(class, verb)| !verb.is_empty() && (class == "system" || Model::get().classes.contains_key(class)));
        known && bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
    };
    // Tests invent calls on purpose.
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.split('"').skip(1).step_by(2).filter(is_call).map(str::to_owned).collect()
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.extend(named(&fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_call_that_is_named_is_in_the_data_model() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (folder, least) in [("xapi/src", 10), ("driver-xcpng/src", 20), ("xapi-sim/src", 50)] {
        let mut all = Vec::new();
        sources(&crates.join(folder), &mut all);
        all.sort();
        all.dedup();
        assert!(all.len() >= least, "{folder}: {all:?}");
        for name in all {
            let method = Model::get().method(&name).unwrap_or_else(|wrong| panic!("{folder}: {wrong}"));
            // The server may know what the driver must not need.
            if folder != "xapi-sim/src" {
                let known = NEWER.iter().any(|(newer, _)| *newer == name);
                assert!(known || method.is_in(Release::OLDEST), "{folder}: {name} is there since {}", method.since);
            }
        }
    }
}
