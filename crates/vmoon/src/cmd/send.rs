//! `vmoon send`: types into a terminal, or answers a command that waits for input.

use super::lifecycle::{self, Told};
use crate::{
    ctx::Ctx,
    exit::Exit,
    select::{self, Picked},
};
use std::{ffi::OsString, io::Read as _, os::unix::ffi::OsStrExt as _};
use vmoon_api::{Api as _, Data, requests::Input};
use vmoon_core::{Code, Error, Result, frame::MAX_PAYLOAD, name::escape};

const EXAMPLES: &str = "Examples:
  vmoon send lab yes
  vmoon send lab - < answers.txt
  vmoon send lab --no-newline abc
  vmoon send 'fold-*' yes              the same answer to many
  vmoon send lab --end                 no more input will come
  vmoon send web01/serial root         types it on a console, with Return";

/// What to send, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The session: [CONNECTION:]MACHINE[/SESSION]; globs and braces mean many
    #[arg(value_name = "SESSION", add = super::completions::machines())]
    session: String,
    /// The text, to which a line end is added; - sends standard input as it is
    #[arg(value_name = "TEXT", required_unless_present = "end", allow_hyphen_values = true)]
    text: Option<OsString>,
    /// Add no line end
    #[arg(short = 'n', long)]
    no_newline: bool,
    /// Then end the input
    #[arg(long)]
    end: bool,
}

fn data(text: Option<&OsString>, newline: bool) -> Result<Data> {
    let Some(text) = text else { return Ok(Data::default()) };
    if text == "-" {
        let mut bytes = Vec::new();
        let limit = MAX_PAYLOAD as u64 + 1;
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(|error| Error::io("read the standard input", error))?;
        if bytes.len() > MAX_PAYLOAD {
            return Err(Error::new(Code::CommandTooLarge, "the input is larger than 16 MiB").hint("send it in parts"));
        }
        return Ok(Data(bytes));
    }
    let mut bytes = text.as_bytes().to_vec();
    if newline {
        bytes.push(b'\n');
    }
    Ok(Data(bytes))
}

/// Sends it.
pub(crate) async fn run(ctx: &Ctx, args: Args) -> Result<Exit> {
    let data = data(args.text.as_ref(), !args.no_newline)?;
    let selection = select::sessions(&ctx.daemon, std::slice::from_ref(&args.session)).await?;
    let work = |picked: Picked| {
        let request = Input { session: picked.machine.clone(), data: data.clone(), end: args.end };
        async move {
            // Input is not repeated: a line that arrives twice answers two questions.
            ctx.daemon.ask_once(async |client| client.input(request.clone()).await).await?;
            Ok(Told(format!("sent to {}", escape(&picked.name))))
        }
    };
    let tell = |ctx: &Ctx, told: &Told| {
        ctx.out.step(&told.0);
        Ok(())
    };
    lifecycle::bulk(ctx, selection.machines, selection.single, work, tell, "answering").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_end_is_added_unless_refused() {
        let text = OsString::from("a");
        assert_eq!(data(Some(&text), true).unwrap().0, b"a\n");
        assert_eq!(data(Some(&text), false).unwrap().0, b"a");
        assert_eq!(data(None, true).unwrap().0, b"");
    }
}
