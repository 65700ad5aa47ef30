//! `vmoon doctor`: whether everything here is as it should be, and how to fix what is not.

use crate::{
    ctx::Ctx,
    exit::Exit,
    out::{self, Format, color::Style},
};
use vmoon_api::{
    Api as _,
    requests::{Empty, Repair},
    views::{DoctorView, RepairView},
};
use vmoon_core::{
    Code, Error, Result,
    driver::{Check, Verdict},
    name::escape,
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  vmoon doctor
  vmoon doctor -o json
  vmoon doctor --fix --yes             make what is missing, where vmoon knows how

Ends with exit code 10 if a requirement is not met.")]
pub(crate) struct Args {
    /// Make what is missing, where vmoon knows how without touching what is there: asks first
    #[arg(long)]
    fix: bool,
    /// With --fix: do not ask; needed where there is no terminal to ask on
    #[arg(short, long, requires = "fix")]
    yes: bool,
    /// With --fix: say what would be made and make nothing
    #[arg(long, requires = "fix")]
    dry_run: bool,
}

/// Checks.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    if args.fix {
        let planned = repair(ctx, true).await?;
        tell(ctx, &planned);
        if args.dry_run {
            return Ok(Exit::OK);
        }
        if planned.iter().any(|one| !one.steps.is_empty()) {
            let sure = || {
                out::confirm("Make it?").ok_or_else(|| {
                    Error::new(Code::Usage, "this needs a yes, and there is no terminal to ask on").hint("add --yes if you are sure")
                })
            };
            if !args.yes && !sure()? {
                ctx.out.note("nothing was changed");
                return Ok(Exit(Code::Cancelled.exit()));
            }
            let failed: Vec<RepairView> = repair(ctx, false).await?.into_iter().filter(|one| one.error.is_some()).collect();
            tell(ctx, &failed);
        }
    }
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

async fn repair(ctx: &Ctx, dry_run: bool) -> Result<Vec<RepairView>> {
    let request = Repair { dry_run };
    ctx.daemon.ask_once(async |client| client.repair(request.clone()).await).await
}

fn tell(ctx: &Ctx, all: &[RepairView]) {
    for one in all {
        for step in &one.steps {
            ctx.out.note(&format!("{}: {}", escape(&one.connection), escape(step)));
        }
        if let Some(error) = &one.error {
            ctx.out.error_of(Some(&one.connection), &Error::from(error.clone()));
        }
    }
    if all.is_empty() {
        ctx.out.note("there is nothing that vmoon could make");
    }
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
