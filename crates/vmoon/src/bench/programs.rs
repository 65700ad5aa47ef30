//! How fast programs run in a sealed VM: the same chunks there and in a plain interpreter, taking turns.

use super::{
    Bench,
    child::{Child, LOOP},
    report::{section, targets},
};
use serde_json::{Map, Value, json};
use std::path::Path;
use vmoon_core::{Code, Error, Result};

/// Each returns how many seconds of processor time it took. One line: the plain interpreter reads them line by line.
const PROGRAMS: [(&str, &str); 6] = [
    (
        "calls",
        "local t = os.clock() local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end fib(27) return os.clock() - t",
    ),
    ("numbers", "local t = os.clock() local s = 0.0 for i = 1, 4000000 do s = s + i % 7 * 0.5 end return os.clock() - t"),
    ("tables", "local t = os.clock() local a = {} for i = 1, 150000 do a[i] = (i * 7919) % 150001 end table.sort(a) return os.clock() - t"),
    (
        "strings",
        "local t = os.clock() local p = {} for i = 1, 60000 do p[#p + 1] = ('%d:%s'):format(i, 'x') end local s = table.concat(p, ',') local n = select(2, s:gsub('%d+', '')) return os.clock() - t",
    ),
    (
        "objects",
        "local t = os.clock() local C = {} C.__index = C function C.add(self, n) self.v = self.v + n return self end local o = setmetatable({ v = 0 }, C) for i = 1, 1500000 do o:add(i) end return os.clock() - t",
    ),
    (
        "coroutines",
        "local t = os.clock() local co = coroutine.wrap(function() while true do coroutine.yield(1) end end) local n = 0 for i = 1, 600000 do n = n + co() end return os.clock() - t",
    ),
];

/// Programs in a sealed VM beside a plain interpreter. Of each the fastest run counts: what disturbs it only makes it slower.
pub(super) async fn speed(bench: &Bench) -> Result<Value> {
    let rounds = bench.rounds(15, 3);
    bench.place.running("speed", json!({ "profile": "sealed" })).await?;
    let mut plain = bench.lua.clone().and_then(|exe| start(&exe));
    let mut best = [[f64::INFINITY; 2]; PROGRAMS.len()];
    for _ in 0..rounds {
        for (best, (_, code)) in best.iter_mut().zip(PROGRAMS) {
            let view = bench.place.eval("speed", code).await?;
            best[0] = best[0].min(seconds(&view.values.unwrap_or_default().lossy())?);
            if let Ok(child) = &mut plain {
                child.write(code)?;
                best[1] = best[1].min(seconds(&child.read()?)?);
            }
        }
    }
    bench.place.clear().await?;
    let column = |which: usize| {
        let all = PROGRAMS.iter().zip(&best).map(|((name, _), best)| (format!("{name}_us"), json!((best[which] * 1e6).round())));
        all.collect::<Map<String, Value>>()
    };
    let mut vmoon = column(0);
    let lua = plain.map(|_| Value::Object(column(1)));
    if lua.is_ok() {
        // The geometric mean of how many times as long it takes.
        let ratio = (best.iter().map(|[ours, theirs]| (ours / theirs).ln()).sum::<f64>() / PROGRAMS.len() as f64).exp();
        vmoon.insert("slower_percent".into(), json!(((ratio - 1.0) * 1000.0).round() / 10.0));
    }
    let none = Err("the library runs the same interpreter as the column before".into());
    let figures = section("programs in a sealed VM, the fastest of several runs of each", Value::Object(vmoon), lua, none);
    Ok(targets(figures, &[("slower_percent", 3.0, false)]))
}

fn start(exe: &Path) -> Result<Child, String> {
    Child::spawn(exe, &["-e", LOOP], &[]).map_err(|error| error.chain())
}

fn seconds(answer: &str) -> Result<f64> {
    answer.parse().map_err(|_| Error::new(Code::CommandFailed, format!("\"{answer}\" is no time")))
}
