//! How fast programs run in a sealed VM: the same chunks there and in a plain interpreter, taking turns; and one script over many items.

use super::{
    Bench,
    child::{Child, LOOP, find, whole},
    report::{Column, section, targets},
};
use serde_json::{Map, Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use vmoon_core::{Code, Error, Result};
use vmoon_sys::{atomic, paths::private_dir};

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
    let [vmoon, lua] = compared(bench, "builtin", bench.lua.clone()).await?;
    let vmoon = vmoon.map_err(|why| Error::new(Code::CommandFailed, why))?;
    let none = Err("the library runs the same interpreter as the column before".into());
    let figures = section("programs in a sealed VM, the fastest of several runs of each", vmoon, lua, none);
    Ok(targets(figures, &[("slower_percent", 3.0, false)]))
}

/// The same of other Lua versions inside machines, each beside the installed interpreter of that version: what it costs that they can be interrupted,
/// and what their builds differ in.
pub(super) async fn flavours(bench: &Bench) -> Result<Value> {
    let mut all = Map::new();
    for (runtime, interpreter) in [("builtin-luajit", "luajit"), ("builtin-5.1", "lua5.1")] {
        let plain = find(interpreter).ok_or_else(|| format!("there is no program {interpreter}"));
        let [vmoon, plain] = compared(bench, runtime, plain).await?;
        let mut pair = Map::new();
        for (name, column) in [(runtime, vmoon), (interpreter, plain)] {
            match column {
                Ok(figures) => pair.insert(name.into(), figures),
                Err(why) => pair.insert(format!("{name}_reason"), why.into()),
            };
        }
        all.insert(runtime.into(), pair.into());
    }
    let none = || Err("each figure stands beside its own interpreter".to_owned());
    Ok(section("programs in a sealed VM with another Lua inside, beside that Lua alone", all.into(), none(), none()))
}

/// The fastest runs of all programs in a sealed VM with this runtime, and in this interpreter, taking turns; or why there are none.
async fn compared(bench: &Bench, runtime: &str, plain: Result<PathBuf, String>) -> Result<[Column; 2]> {
    let rounds = bench.rounds(15, 3);
    if let Err(error) = bench.place.running("speed", json!({ "profile": "sealed", "runtime": runtime })).await {
        return Ok([Err(error.chain()), Err("there is nothing to compare it with".into())]);
    }
    let mut plain = plain.and_then(|exe| start(&exe));
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
    let plain = plain.map(|_| Value::Object(column(1)));
    if plain.is_ok() {
        // The geometric mean of how many times as long it takes.
        let ratio = (best.iter().map(|[ours, theirs]| (ours / theirs).ln()).sum::<f64>() / PROGRAMS.len() as f64).exp();
        vmoon.insert("slower_percent".into(), json!(((ratio - 1.0) * 1000.0).round() / 10.0));
    }
    Ok([Ok(vmoon.into()), plain])
}

/// One script over many items, each in a sealed process of its own, beside a plain interpreter started for each.
pub(super) fn map(bench: &Bench) -> Result<Value> {
    let n = bench.rounds(2_000, 200);
    let dir = bench.place.dir().join("map");
    private_dir(&dir)?;
    let (script, items) = (dir.join("script.lua"), dir.join("items.jsonl"));
    atomic::write(&script, b"local x = ... return { n = x.n * 2, name = x.name:upper() }\n")?;
    let lines: String = (0..n).map(|i| format!("{{\"n\":{i},\"name\":\"item {i}\"}}\n")).collect();
    atomic::write(&items, lines.as_bytes())?;
    let (script, items) = (script.to_string_lossy().into_owned(), items.to_string_lossy().into_owned());
    let env = bench.place.env();
    let mut figures = Map::new();
    for jobs in ["1", "2"] {
        let took = whole(bench.place.exe(), &["run", "-q", "--map", &items, "--jobs", jobs, &script], &env, "{\"index\":0,\"result\":{")?;
        figures.insert(format!("jobs_{jobs}_items_per_second"), per_second(n, took));
    }
    figures.insert("items".into(), n.into());
    let lua = bench.lua(|exe| {
        let begun = std::time::Instant::now();
        for _ in 0..n {
            whole(exe, &["-e", "print(1)"], &[], "1\n")?;
        }
        Ok(json!({ "items": n, "items_per_second": per_second(n, begun.elapsed()) }))
    });
    Ok(section("one script over many items, a sealed process each", figures.into(), lua, Err("the library has no such thing".into())))
}

fn per_second(n: usize, took: Duration) -> Value {
    json!((n as f64 / took.as_secs_f64()).round())
}

fn start(exe: &Path) -> Result<Child, String> {
    Child::spawn(exe, &["-e", LOOP], &[]).map_err(|error| error.chain())
}

fn seconds(answer: &str) -> Result<f64> {
    answer.parse().map_err(|_| Error::new(Code::CommandFailed, format!("\"{answer}\" is no time")))
}
