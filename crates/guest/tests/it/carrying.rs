//! Environments in guests: there before a session begins, there again when the guest has lost them, and refused with a way out.

use crate::place::{At, Talk, channel, machine, seeded, set};
use async_trait::async_trait;
use serde_json::json;
use std::{fs, path::PathBuf, process::Command, sync::Arc};
use vmoon_core::{
    Code, Error, Result,
    ability::{Nobody, UsedEnvironment},
    frame::tag,
};
use vmoon_guest::{Config, Environments, Guests};
use vmoon_remote::environment::{Environment, Recipe, TreeFile};
use vmoon_ssh_lab::{Lab, Tools};
use vmoon_sys::login::Login;

/// Environments of one module that says its environment's name; that of `old` is for another Lua.
#[derive(Debug)]
struct Made(PathBuf);

#[async_trait]
impl Environments for Made {
    async fn find(&self, name: &str) -> Result<Environment> {
        let lua = match name {
            "bio" | "next" => "5.4",
            "old" => "5.1",
            _ => return Err(Error::new(Code::EnvironmentNotFound, format!("no environment is named {name}"))),
        };
        let (tree, path) = (self.0.join(name), format!("share/lua/{lua}/called.lua"));
        let file = tree.join(&path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        let text = format!("return '{name}'");
        fs::write(&file, &text).expect("a file");
        let out = Command::new("sha256sum").arg(&file).output().expect("sha256sum");
        let sha256 = String::from_utf8_lossy(&out.stdout)[..64].to_owned();
        let used = UsedEnvironment { name: name.into(), generation: 3, lua: lua.into() };
        Ok(Environment { used, tree, files: vec![TreeFile { path, sha256, size: text.len() as u64, rock: None }] })
    }

    async fn recipe(&self, _: &Environment, rock: &str) -> Result<Recipe> {
        Err(Error::new(Code::PackageBuild, format!("{rock} has no sources")))
    }
}

fn guests(dir: &std::path::Path) -> Guests {
    let environments: Arc<dyn Environments> = Arc::new(Made(dir.join("made")));
    Guests::new(Config { dir: dir.join("guests"), connection: "c1".into(), login: Login::default(), environments: Some(environments) })
}

const CALLED: &str = "local ok, name = pcall(require, 'called') print(ok and name or 'none')";

/// What a new session finds, which ends then.
async fn finds(guests: &Guests, at: &At) -> Result<String> {
    let main = channel(guests, 7, "main");
    let mut talk = Talk::open(guests, at, 7, &main, 0).await?;
    let said = talk.eval(CALLED).await;
    talk.send(tag::QUIT, 0, &[]).await;
    while talk.next().await.expect("a link").is_ok() {}
    Ok(said.trim().to_owned())
}

#[tokio::test]
async fn a_session_begins_with_the_environment_that_its_machine_is_to_use() {
    let (dir, lab) = (tempfile::tempdir().unwrap(), Lab::new(Tools::BusyBox, "lua5.4").await);
    let at = At::lab(&lab);
    let first = guests(dir.path());
    assert_eq!(first.look_for("none").await.unwrap_err().code(), Code::EnvironmentNotFound);
    seeded(&first, &lab);
    first.want("vm-1", "bio").unwrap();
    assert_eq!((first.wanted("vm-1").as_deref(), first.used().len(), lab.connections()), (Some("bio"), 0, 0));
    assert_eq!(finds(&first, &at).await.unwrap(), "bio");
    let used = first.used();
    assert_eq!((used[0].0.as_str(), used[0].1.generation), ("vm-1", 3));
    let facts = first.describe("vm-1");
    assert!(facts["env"] == "bio" && facts["generation"] == 3, "{facts:?}");

    // Another daemon, and a guest that has lost everything.
    let second = guests(dir.path());
    assert_eq!(second.used(), used);
    fs::remove_dir_all(lab.path().join("state/vmoon")).unwrap();
    assert_eq!(finds(&second, &at).await.unwrap(), "bio");

    // Switched while nothing runs there.
    let account = second.account(&machine(7), &at).await.unwrap();
    let switched = account.carrier.as_ref().unwrap().switch("next", false, &Nobody).await.unwrap();
    second.carried("vm-1", &switched.environment);
    drop(account);
    assert_eq!(finds(&second, &at).await.unwrap(), "next");

    // One that does not fit is refused, with what helps.
    set(&second, json!({ "env": "old" })).unwrap();
    let error = finds(&second, &at).await.unwrap_err();
    let hint = error.hint_text().unwrap_or_default();
    assert!(
        error.code() == Code::SpecInvalid && hint.contains("vmoon env apply OTHER web01") && hint.contains("vmoon set web01 env="),
        "{error:?}"
    );
    assert_eq!(set(&second, json!({ "env": "" })).unwrap()[0].what, "env old → none");
    assert_eq!(finds(&second, &at).await.unwrap(), "none");
    assert!(second.used().is_empty());
}

#[tokio::test]
async fn a_guest_without_sftp_or_lua_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with(Tools::BusyBox, "lua5.4", "Match all\nForceCommand /bin/false").await;
    let at = At::lab(&lab);
    let guests = guests(dir.path());
    seeded(&guests, &lab);
    let account = guests.account(&machine(7), &at).await.unwrap();
    let error = account.files.look(b"x").await.unwrap_err();
    assert!(error.code() == Code::DriverUnsupported && error.hint_text().is_some_and(|hint| hint.contains("Subsystem sftp")), "{error:?}");

    let lab = Lab::new(Tools::NoLua, "lua5.4").await;
    let dir = tempfile::tempdir().unwrap();
    let guests = self::guests(dir.path());
    seeded(&guests, &lab);
    guests.want("vm-1", "bio").unwrap();
    let error = finds(&guests, &At::lab(&lab)).await.unwrap_err();
    assert_eq!(error.code(), Code::GuestNoLua, "{error}");
    let account = guests.account(&machine(7), &At::lab(&lab)).await.unwrap();
    let error = account.carrier.as_ref().unwrap().lua().await.unwrap_err();
    assert_eq!(error.code(), Code::GuestNoLua, "{error}");
}
