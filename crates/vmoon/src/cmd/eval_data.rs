//! Arguments and results of `vmoon eval` as data: where the arguments come from, and how the values are shown as JSON.

use super::pieces::Printer;
use crate::{
    ctx::Ctx,
    out::{Format, json},
};
use std::{ffi::OsStr, fs::File, io::Read, path::PathBuf};
use vmoon_api::views::CommandView;
use vmoon_core::{Code, Error, Result, frame::MAX_PAYLOAD, name::escape};

/// The options of arguments and data.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct Options {
    /// The chunk's arguments (...), a JSON array; they are passed as values and never become part of the code
    #[arg(long, value_name = "JSON", conflicts_with = "args_file")]
    args: Option<String>,
    /// One more argument, as a string; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// Read the arguments' JSON array from a file; - is standard input
    #[arg(long, value_name = "FILE")]
    args_file: Option<PathBuf>,
    /// Print the values as a JSON array instead of as Lua would; what has no form in JSON is null and is told of
    #[arg(long)]
    pub(crate) data: bool,
}

impl Options {
    /// The arguments; `None` if there are none. `code` is the chunk as it was given.
    ///
    /// # Errors
    /// [`Code::Usage`] for what is no JSON array, and when both the chunk and the arguments are to come from standard input.
    pub(crate) fn arguments(&self, code: &OsStr) -> Result<Option<Vec<serde_json::Value>>> {
        let text = match (&self.args, &self.args_file) {
            (Some(text), _) => Some(("--args".to_owned(), text.clone().into_bytes())),
            (None, Some(path)) => Some((escape(&path.to_string_lossy()), self.read(path, code)?)),
            (None, None) => None,
        };
        let mut all = match &text {
            Some((whence, text)) => serde_json::from_slice(text).map_err(|error| {
                Error::new(Code::Usage, format!("{whence} is no JSON array: {error}")).hint("for example --args '[1, {\"a\": 2}]'")
            })?,
            None => Vec::new(),
        };
        all.extend(self.arg.iter().cloned().map(serde_json::Value::String));
        Ok((text.is_some() || !all.is_empty()).then_some(all))
    }

    fn read(&self, path: &std::path::Path, code: &OsStr) -> Result<Vec<u8>> {
        let failed = |error| Error::io(format_args!("read the arguments from {}", escape(&path.to_string_lossy())), error);
        let from: Box<dyn Read> = if path.as_os_str() != "-" {
            Box::new(File::open(path).map_err(failed)?)
        } else if code == "-" {
            return Err(
                Error::new(Code::Usage, "both the code and the arguments are to be read from standard input").hint("give one as a file")
            );
        } else {
            Box::new(std::io::stdin().lock())
        };
        let mut bytes = Vec::new();
        from.take(MAX_PAYLOAD as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > MAX_PAYLOAD {
            return Err(Error::new(Code::CommandTooLarge, "the arguments are larger than 16 MiB")
                .hint("write them to a file and let the machine read it"));
        }
        Ok(bytes)
    }
}

/// Prints the values as data, if they were wanted so; `false` if they were not.
///
/// # Errors
/// Those of standard output.
pub(crate) fn show(ctx: &Ctx, view: &CommandView, printer: &mut Printer) -> Result<bool> {
    if view.data.is_none() && view.unfit.is_empty() {
        return Ok(false);
    }
    if matches!(ctx.out.format(), Format::Table | Format::Wide) {
        printer.values(json::line(&view.data)?.trim_ascii_end())?;
    }
    for unfit in &view.unfit {
        let place = if unfit.path.is_empty() { "the values" } else { &unfit.path };
        ctx.out.note(&format!("{}: {} has no form in JSON", escape(place), escape(&unfit.why)));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_are_put_together() {
        let read = |options: Options| options.arguments(OsStr::new("return ..."));
        assert_eq!(read(Options::default()).unwrap(), None);
        let both = Options { args: Some("[1, null]".into()), arg: vec!["-x".into(), "[2]".into()], ..Options::default() };
        assert_eq!(read(both).unwrap(), Some(vec![json!(1), json!(null), json!("-x"), json!("[2]")]));
        assert_eq!(read(Options { args: Some("[]".into()), ..Options::default() }).unwrap(), Some(vec![]));
        for bad in ["", "1", "{}", "[1", "[1] 2"] {
            let error = read(Options { args: Some(bad.into()), ..Options::default() }).unwrap_err();
            assert_eq!(error.code(), Code::Usage, "{bad}");
        }
        let twice = Options { args_file: Some("-".into()), ..Options::default() };
        assert_eq!(twice.arguments(OsStr::new("-")).unwrap_err().code(), Code::Usage);
        let missing = Options { args_file: Some("/nonexistent/args".into()), ..Options::default() };
        assert_eq!(read(missing).unwrap_err().code(), Code::FileFailed);
    }
}
