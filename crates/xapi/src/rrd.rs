//! What hosts have measured: `rrd_updates`, as XML, which every release writes (its JSON was none for a long time). Each host tells of itself and of the VMs that run on
//! it.

use crate::{
    client::Client,
    error::{Error, Result},
    members::Place,
};
use quick_xml::{Reader, events::Event};

/// The largest answer that is read, bytes.
const LARGEST: usize = 16 << 20;
/// The most values that are read: rows times columns.
const MOST: usize = 1 << 20;

/// What a series is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// A VM, by its uuid.
    Vm(String),
    /// A host, by its uuid.
    Host(String),
    /// Something that is not known: its word, and its uuid.
    Other(String, String),
}

/// One thing that is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// `AVERAGE`, `MIN`, `MAX`, `LAST`.
    pub function: String,
    /// Of what.
    pub of: Of,
    /// `cpu0`, `memory`, `vif_0_rx`, `memory_internal_free`, …. Units are those of XAPI: shares of a processor, bytes, KiB, bytes a second.
    pub name: String,
    /// The newest first, as in [`Updates::times`]. What was not measured is NaN.
    pub values: Vec<f64>,
}

/// What was measured since a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Updates {
    /// Seconds between two values.
    pub step: u64,
    /// When each value was measured, seconds since the Unix epoch, the newest first.
    pub times: Vec<i64>,
    /// What was measured.
    pub series: Vec<Series>,
}

impl Updates {
    /// The newest value of something that was measured, over the averages.
    pub fn newest(&self, of: &Of, name: &str) -> Option<f64> {
        let fits = |series: &&Series| series.function == "AVERAGE" && series.of == *of && series.name == name;
        self.series.iter().find(fits)?.values.iter().copied().find(|value| value.is_finite())
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`Error::Protocol`].
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: &str| Error::protocol(format!("these are no statistics: {what}"));
        let mut reader = Reader::from_str(text);
        let (mut updates, mut path, mut said) = (Self::default(), Vec::<String>::new(), String::new());
        let (mut column, mut count, mut whole) = (0, 0, false);
        loop {
            match reader.read_event().map_err(|error| bad(&error.to_string()))? {
                Event::Start(tag) => {
                    path.push(tag.name().as_ref().to_owned());
                    said.clear();
                    if path.len() > 8 {
                        return Err(bad("elements lie too deep in each other"));
                    }
                    if path == ["xport", "data", "row"] {
                        column = 0;
                    }
                }
                Event::Text(text) => said.push_str(&text),
                Event::DocType(_) => return Err(bad("a DTD")),
                Event::End(_) => {
                    let path_now: Vec<&str> = path.iter().map(String::as_str).collect();
                    match path_now.as_slice() {
                        ["xport", "meta", "step"] => updates.step = said.trim().parse().map_err(|_| bad("a step that is no number"))?,
                        ["xport", "meta", "legend", "entry"] => updates.series.push(series(said.trim())),
                        ["xport", "data", "row", "t"] => updates.times.push(said.trim().parse().map_err(|_| bad("a time that is none"))?),
                        ["xport", "data", "row", "v"] => {
                            let series = updates.series.get_mut(column).ok_or_else(|| bad("more values than names"))?;
                            series.values.push(said.trim().parse().unwrap_or(f64::NAN));
                            column += 1;
                            count += 1;
                        }
                        ["xport", "data", "row"] if column != updates.series.len() => return Err(bad("fewer values than names")),
                        ["xport"] => whole = true,
                        _ => {}
                    }
                    if count > MOST || updates.series.len() > MOST || updates.times.len() > MOST {
                        return Err(bad("too many values"));
                    }
                    path.pop();
                    said.clear();
                }
                Event::Eof if whole => return Ok(updates),
                Event::Eof => return Err(bad("they are cut off")),
                _ => {}
            }
        }
    }
}

/// Reads `AVERAGE:vm:UUID:cpu0`. Names may have colons.
fn series(entry: &str) -> Series {
    let mut parts = entry.splitn(4, ':');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (function, what, uuid, name) = (next(), next(), next(), next());
    let of = match what.as_str() {
        "vm" => Of::Vm(uuid),
        "host" => Of::Host(uuid),
        _ => Of::Other(what, uuid),
    };
    Series { function, of, name, values: Vec::new() }
}

impl Client {
    /// What a host has measured since `since`, seconds since the Unix epoch by its clock, of itself and its VMs. Without a host the coordinator.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn measured(&self, host: Option<&str>, since: i64) -> Result<Updates> {
        let session = self.session().await?;
        let host = match host {
            Some(address) => crate::http::beside(&session.host, address)?,
            None => session.host,
        };
        let place = Place::new(host, "/rrd_updates").with("start", since.to_string()).with("host", "true").with("cf", "AVERAGE");
        let body = self.small(place, LARGEST).await?;
        let text = std::str::from_utf8(&body).map_err(|_| Error::protocol("statistics that are no text"))?;
        Updates::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "<xport><meta><start>100</start><step>5</step><end>110</end><rows>2</rows><columns>3</columns><legend>\
        <entry>AVERAGE:vm:u-1:cpu0</entry><entry>AVERAGE:host:h-1:memory_free_kib</entry><entry>MAX:sr:s-1:io:x</entry></legend></meta>\
        <data><row><t>110</t><v>NaN</v><v>2.0480e3</v><v>1</v></row><row><t>105</t><v>0.25</v><v>0</v><v>-Inf</v></row></data></xport>";

    #[test]
    fn statistics_are_read_by_what_they_are_of() {
        let updates = Updates::parse(SAMPLE).unwrap();
        assert_eq!((updates.step, updates.times.as_slice()), (5, &[110, 105][..]));
        // The newest that was measured: of the processor that is the older one.
        assert_eq!(updates.newest(&Of::Vm("u-1".into()), "cpu0"), Some(0.25));
        assert_eq!(updates.newest(&Of::Host("h-1".into()), "memory_free_kib"), Some(2048.0));
        assert_eq!(updates.newest(&Of::Vm("u-2".into()), "cpu0"), None);
        assert_eq!((&updates.series[2].of, updates.series[2].name.as_str()), (&Of::Other("sr".into(), "s-1".into()), "io:x"));
    }

    #[test]
    fn what_is_no_statistics_is_refused() {
        for bad in [
            "",
            "{}",
            "<xport>",
            "<xport><data><row><t>1</t><v>1</v></row></data></xport>",
            "<xport><meta><legend><entry>a</entry></legend></meta><data><row><t>1</t></row></data></xport>",
            "<!DOCTYPE x [<!ENTITY a \"b\">]><xport></xport>",
            "<xport><data><row><t>x</t></row></data></xport>",
            &SAMPLE[..SAMPLE.len() - 1],
        ] {
            assert!(Updates::parse(bad).is_err(), "{bad}");
        }
        assert!(Updates::parse(&"<a>".repeat(100_000)).is_err());
        assert!(Updates::parse(&format!("<xport><meta><legend>{}</legend></meta></xport>", "<entry>a</entry>".repeat(MOST + 1))).is_err());
    }
}
