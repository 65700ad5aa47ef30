//! `vmoon doctor`: whether everything here is as it should be, and how to fix what is not.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{Format, color::Style},
};
use vmoon_api::{Api as _, requests::Empty, views::DoctorView};
use vmoon_core::{
    Code, Result,
    driver::{Check, Verdict},
    name::escape,
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon doctor
  vmoon doctor -o json

Ends with exit code 10 if a requirement is not met.")]
pub(crate) struct Args {}

/// Checks.
pub(crate) async fn run(ctx: &Ctx, _args: Args) -> Result<Exit> {
    let view = match ctx.daemon.ask(async |client| client.doctor(Empty {}).await).await {
        Ok(view) => view,
        Err(error) => DoctorView {
            checks: vec![Check {
                requirement: "the daemon answers".into(),
                verdict: Verdict::Fail,
                finding: error.chain(),
                fix: error.hint_text().unwrap_or("see the daemon's log").to_owned(),
            }],
        },
    };
    if ctx.out.format().is_machine() && ctx.out.format() != Format::Name {
        let rows: Vec<(String, String)> = view.checks.iter().map(|check| (check.requirement.clone(), check.finding.clone())).collect();
        ctx.out.one(&view, "doctor", &rows)?;
    } else {
        for check in &view.checks {
            ctx.out.bytes(line(ctx, check).as_bytes())?;
        }
    }
    let failed = view.checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { Exit(Code::DoctorFailed.exit()) } else { Exit::OK })
}

fn line(ctx: &Ctx, check: &Check) -> String {
    let paint = ctx.out.paint();
    let mark = match check.verdict {
        Verdict::Ok => paint.paint(Style::Good, "✓"),
        Verdict::Warn => paint.paint(Style::Warn, "!"),
        Verdict::Fail => paint.paint(Style::Error, "✗"),
    };
    let mut text = format!("{mark} {}: {}\n", escape(&check.requirement), escape(&check.finding));
    for fix in check.fix.lines() {
        text.push_str(&format!("    {} {}\n", paint.paint(Style::Hint, "fix:"), escape(fix)));
    }
    text
}
