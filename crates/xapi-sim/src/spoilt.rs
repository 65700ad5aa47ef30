//! Tests only: what clients send, and files that are loaded, spoilt. It is refused or taken; nothing panics or hangs.

use crate::{
    engine,
    model::Model,
    store::Store,
    wire::{json, xml},
    xmldb,
};
use vmoon_driver_sim::Hostile;

/// How many spoilt forms of each sample.
const ROUNDS: usize = 700;

fn feed(seed: u64, sample: &str, rounds: usize, mut decode: impl FnMut(&[u8]) -> bool) {
    assert!(decode(sample.as_bytes()), "{sample}");
    let mut hostile = Hostile::new(seed);
    for _ in 0..rounds {
        let mut bytes = sample.as_bytes().to_vec();
        hostile.spoil(&mut bytes);
        decode(&bytes);
    }
}

#[test]
fn calls_and_databases_that_are_spoilt_are_refused_or_taken() {
    feed(1, r#"{"jsonrpc":"2.0","method":"VM.get_all","params":["OpaqueRef:x",{"a":[1,"2"]}],"id":1}"#, ROUNDS, |bytes| {
        json::read(bytes).is_some()
    });
    let call = "<methodCall><methodName>VM.x</methodName><params><param><value><struct><member><name>a</name><value><int>1</int></value></member></struct></value></param>\
        <param><value><array><data><value>&lt;x&gt;</value></data></array></value></param></params></methodCall>";
    feed(2, call, ROUNDS, |bytes| xml::read(bytes).is_some());
    let database = "<database><table name=\"VM\"><row ref=\"OpaqueRef:1\" name__label=\"a%.b\" tags=\"('x'%.'y\\'z')\" other_config=\"(('k'%.'v'))\" domid=\"-1\"/></table></database>";
    feed(3, database, ROUNDS, |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        xmldb::read(&mut Store::new(Model::get()), &text).is_ok()
    });
    let store = &mut crate::seed::pool("10.9.0.1");
    let query = r#"not (field "name__label" = "a" or field "is_a_template"="true") and true"#;
    feed(4, query, ROUNDS, |bytes| {
        let query = String::from_utf8_lossy(bytes).into_owned();
        let all = crate::model::Accessor::AllRecordsWhere;
        engine::obey(&all, store, "pool", &[query.into()]).is_ok()
    });
}
