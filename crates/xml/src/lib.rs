//! XML as a tree: what others say is read into it, what we say is written from it.
//!
//! Everything we did not make is kept as it was: editing a foreign document changes the nodes we own and no others. Reading is
//! bounded in depth and size, so that hostile XML is an error and nothing worse.

use quick_xml::{
    Reader, Writer, XmlVersion,
    escape::{escape, resolve_predefined_entity},
    events::{BytesEnd, BytesStart, BytesText, Event},
};
use vmoon_core::{Code, Error, Result};

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// The longest text that is read, bytes: the largest reply that libvirt sends.
const MAX_BYTES: usize = 32 << 20;

/// One element with its attributes and children, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name, with its prefix.
    pub name: String,
    /// Its attributes, in their order.
    pub attributes: Vec<(String, String)>,
    /// What it holds, in its order.
    pub children: Vec<Node>,
}

/// What an element holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// An element.
    Element(Element),
    /// A text, without escapes.
    Text(String),
}

impl Element {
    /// An empty element. Names are ours, never a user's.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// With an attribute.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.set(name, value);
        self
    }

    /// With an attribute if there is a value.
    pub fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With a child.
    pub fn child(mut self, child: Element) -> Self {
        self.children.push(Node::Element(child));
        self
    }

    /// With children.
    pub fn all(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children.into_iter().map(Node::Element));
        self
    }

    /// With a text.
    pub fn text(mut self, text: impl ToString) -> Self {
        self.children.push(Node::Text(text.to_string()));
        self
    }

    /// With a child that holds nothing but a text.
    pub fn leaf(self, name: &str, text: impl ToString) -> Self {
        self.child(Element::new(name).text(text))
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        match self.attributes.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.attributes.push((name.to_owned(), value)),
        }
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Its child elements.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// Its child elements, to change.
    pub fn elements_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        self.children.iter_mut().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// Its child elements of that name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.elements().filter(move |element| element.name == name)
    }

    /// The first child element of that name.
    pub fn first(&self, name: &str) -> Option<&Element> {
        self.elements().find(|element| element.name == name)
    }

    /// The first child element of that name, to change.
    pub fn first_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.elements_mut().find(|element| element.name == name)
    }

    /// The first child element of that name, made at the end if there is none.
    pub fn ensure(&mut self, name: &str) -> &mut Element {
        let at = self.children.iter().position(|node| matches!(node, Node::Element(element) if element.name == name));
        let at = at.unwrap_or_else(|| {
            self.children.push(Node::Element(Element::new(name)));
            self.children.len() - 1
        });
        match &mut self.children[at] {
            Node::Element(element) => element,
            Node::Text(_) => unreachable!("the position is that of an element"),
        }
    }

    /// The element at the end of a path of names, `devices/disk`: the first of each.
    pub fn at(&self, path: &str) -> Option<&Element> {
        path.split('/').try_fold(self, |element, name| element.first(name))
    }

    /// All text directly inside, without the blanks around it.
    pub fn content(&self) -> String {
        let mut all = String::new();
        for node in &self.children {
            if let Node::Text(text) = node {
                all.push_str(text);
            }
        }
        all.trim().to_owned()
    }

    /// The text at the end of a path, if it is there.
    pub fn text_at(&self, path: &str) -> Option<String> {
        self.at(path).map(Element::content)
    }

    /// Removes the child elements for which `unwanted` is true. Gives how many there were.
    pub fn remove(&mut self, unwanted: impl Fn(&Element) -> bool) -> usize {
        let before = self.children.len();
        self.children.retain(|node| !matches!(node, Node::Element(element) if unwanted(element)));
        before - self.children.len()
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Code::WireMalformed`] if it is not one well-formed element, is nested too deeply, or declares entities.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| Error::new(Code::WireMalformed, format!("the XML is malformed: {why}"));
        if text.len() > MAX_BYTES {
            return Err(bad(format!("it has {} bytes", text.len())));
        }
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Element> = Vec::new();
        let mut root: Option<Element> = None;
        loop {
            let position = reader.buffer_position();
            let event = reader.read_event().map_err(|error| bad(format!("at byte {position}: {error}")))?;
            let (closed, text) = match event {
                Event::Start(start) => {
                    if open.len() >= MAX_DEPTH || root.is_some() {
                        return Err(bad(format!("at byte {position}: too deep, or a second root")));
                    }
                    open.push(element(&start).map_err(&bad)?);
                    continue;
                }
                Event::Empty(start) if root.is_none() => (Some(element(&start).map_err(&bad)?), None),
                Event::End(_) => (open.pop(), None),
                Event::Text(text) => (None, Some(text.xml10_content().into_owned())),
                Event::CData(data) => (None, Some(data.xml10_content().into_owned())),
                Event::GeneralRef(reference) => {
                    let char = reference.resolve_char_ref().map_err(|error| bad(error.to_string()))?;
                    let text = match char {
                        Some(char) => char.to_string(),
                        None => resolve_predefined_entity(&reference).map(str::to_owned).ok_or_else(|| bad("an unknown entity".into()))?,
                    };
                    (None, Some(text))
                }
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => continue,
                Event::DocType(_) => return Err(bad("it has a document type".into())),
                Event::Empty(_) => return Err(bad(format!("at byte {position}: a second root"))),
                Event::Eof => break,
            };
            match (closed, text, open.last_mut()) {
                (Some(element), _, Some(parent)) => parent.children.push(Node::Element(element.tidied())),
                (Some(element), _, None) => root = Some(element.tidied()),
                (None, Some(text), Some(parent)) => match parent.children.last_mut() {
                    Some(Node::Text(last)) => last.push_str(&text),
                    _ => parent.children.push(Node::Text(text)),
                },
                (None, Some(text), None) if !text.trim().is_empty() => return Err(bad("there is text outside of the root".into())),
                _ => {}
            }
        }
        if !open.is_empty() {
            return Err(bad("it is cut off".into()));
        }
        root.ok_or_else(|| bad("there is no element".into()))
    }

    /// Without the blanks between its elements, which mean nothing; blanks of an element that holds text alone stay.
    fn tidied(mut self) -> Self {
        if self.elements().next().is_some() {
            self.children.retain(|node| !matches!(node, Node::Text(text) if text.trim().is_empty()));
        }
        self
    }

    /// The same with a declaration before it, as Windows Setup wants it.
    pub fn to_document(&self) -> String {
        format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n{}", self.to_text())
    }

    /// The document, indented by two blanks, with a line end.
    pub fn to_text(&self) -> String {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        // Writing into memory does not fail.
        let _ = self.write(&mut writer);
        let mut text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
        text.push('\n');
        text
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> std::io::Result<()> {
        let mut start = BytesStart::new(self.name.as_str());
        for (name, value) in &self.attributes {
            start.push_attribute((name.as_str(), value.as_str()));
        }
        if self.children.is_empty() {
            return writer.write_event(Event::Empty(start));
        }
        writer.write_event(Event::Start(start))?;
        for node in &self.children {
            match node {
                Node::Element(element) => element.write(writer)?,
                Node::Text(text) => writer.write_event(Event::Text(BytesText::from_escaped(escape(text.as_str()))))?,
            }
        }
        writer.write_event(Event::End(BytesEnd::new(self.name.as_str())))
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, String> {
    let named = |name: &str| if is_name(name) { Ok(()) } else { Err(format!("\"{}\" is no name", name.escape_debug())) };
    named(start.name().as_ref())?;
    let mut element = Element::new(start.name().as_ref());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        named(attribute.key.as_ref())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        element.attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(element)
}

/// Whether it can be the name of an element or attribute (production `Name` of XML 1.0, more generous beyond ASCII): the reader takes anything there, and what it takes
/// could not be read again once it is written.
fn is_name(name: &str) -> bool {
    let begins = |char: char| char.is_ascii_alphabetic() || matches!(char, '_' | ':') || !char.is_ascii();
    name.starts_with(begins) && name.chars().all(|char| begins(char) || char.is_ascii_digit() || matches!(char, '-' | '.'))
}

/// Whether XML 1.0 can hold the text at all: no control character but tab and line ends.
pub fn can_hold(text: &str) -> bool {
    !text.chars().any(|char| matches!(char, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_driver_sim::Hostile;

    #[test]
    fn hostile_text_comes_back_as_it_was() {
        for text in ["a & b <c>", "\"'><!--", "]]>", "../x", "--help", "x\ny\tz", "é\u{202e}", "&amp;", "&#0;"] {
            let element = Element::new("a").with("b", text).leaf("c", text);
            let read = Element::parse(&element.to_text()).unwrap();
            assert_eq!((read.attribute("b"), read.text_at("c").as_deref()), (Some(text), Some(text)), "{}", element.to_text());
        }
    }

    #[test]
    fn what_is_read_is_written_again() {
        let text = "<d a=\"1\">\n  <x:y xmlns:x=\"urn:x\">t</x:y>\n  <z/>\n</d>\n";
        assert_eq!(Element::parse(text).unwrap().to_text(), text);
        assert_eq!(Element::parse(&format!("<?xml version='1.0'?><!-- c -->{text}")).unwrap().to_text(), text);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let deep = format!("{}{}", "<a>".repeat(1000), "</a>".repeat(1000));
        // An element without a name was taken, and written as `</>`, which nobody can read (found by fuzzing).
        for bad in [
            "",
            "x",
            "<a>",
            "</>",
            "< />",
            "<a><1/></a>",
            "<a \"=''/>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<a b=1/>",
            "<a>&x;</a>",
            "<!DOCTYPE a [<!ENTITY x 'y'>]><a/>",
            &deep,
        ] {
            let error = Element::parse(bad).unwrap_err();
            assert_eq!(error.code(), Code::WireMalformed, "{bad}");
        }
        let mut hostile = Hostile::new(7);
        let good = Element::new("d").with("a", "1 & 2").leaf("b", "<>").to_text();
        for _ in 0..5_000 {
            let mut bytes = good.clone().into_bytes();
            hostile.spoil(&mut bytes);
            let _ = Element::parse(&String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn control_characters_cannot_be_held() {
        assert!(can_hold("a\tb\r\nü") && !can_hold("a\0") && !can_hold("\u{1b}[31m"));
    }
}
