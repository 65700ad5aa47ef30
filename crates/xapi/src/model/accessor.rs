//! Accessors: calls that the data model has for every class and field without listing them one by one. `get_record`, `get_by_uuid`, `set_F`, `add_to_F`, ….

use super::{Access, Class, Field, Type};

/// An accessor of a class.
#[derive(Clone, Copy, Debug)]
pub enum Accessor<'a> {
    /// References of all objects.
    All,
    /// All objects by reference.
    AllRecords,
    /// The same, of those that a query fits.
    AllRecordsWhere,
    /// One object.
    Record,
    /// The object of that uuid.
    ByUuid,
    /// The objects of that name.
    ByName,
    /// A new object from a record.
    Create,
    /// Removes an object.
    Destroy,
    /// A field of an object.
    Get(&'a Field),
    /// Gives a field another value.
    Set(&'a Field),
    /// Adds to a set or a map.
    Add(&'a Field),
    /// Removes from a set or a map.
    Remove(&'a Field),
}

/// A parameter: its name, its type, and whether it may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// As the data model calls it.
    pub name: String,
    /// What it takes.
    pub ty: Type,
    /// Whether it may be left out, with all that follow.
    pub optional: bool,
}

impl Param {
    fn new(name: &str, ty: Type) -> Self {
        Self { name: name.into(), ty, optional: false }
    }
}

impl<'a> Accessor<'a> {
    /// The accessor of that name, if the class has it.
    pub fn find(class: &'a Class, verb: &str) -> Option<Self> {
        let writable = |name: &str| {
            // Constructor fields of some classes have setters of their own among the calls.
            class.field(name).filter(|field| field.access == Access::Writable)
        };
        let map = |name: &str| writable(name).filter(|field| matches!(field.ty, Type::Map(..)));
        let set = |name: &str| writable(name).filter(|field| matches!(field.ty, Type::Set(_)));
        Some(match verb {
            "get_all" if class.lists => Accessor::All,
            "get_all_records" if class.lists => Accessor::AllRecords,
            "get_all_records_where" if class.lists => Accessor::AllRecordsWhere,
            "get_record" => Accessor::Record,
            "get_by_uuid" => Accessor::ByUuid,
            "get_by_name_label" if class.by_name => Accessor::ByName,
            "create" if class.make.is_some() => Accessor::Create,
            "destroy" if class.destroy => Accessor::Destroy,
            _ => {
                if let Some(name) = verb.strip_prefix("add_to_") {
                    return map(name).map(Accessor::Add);
                }
                if let Some(name) = verb.strip_prefix("remove_from_") {
                    return map(name).map(Accessor::Remove);
                }
                if let Some(name) = verb.strip_prefix("add_") {
                    return set(name).map(Accessor::Add);
                }
                if let Some(name) = verb.strip_prefix("remove_") {
                    return set(name).map(Accessor::Remove);
                }
                if let Some(name) = verb.strip_prefix("set_") {
                    return writable(name).map(Accessor::Set);
                }
                return verb.strip_prefix("get_").and_then(|name| class.field(name)).map(Accessor::Get);
            }
        })
    }

    /// What it wants after the session, and what it answers.
    pub fn shape(&self, class: &str) -> (Vec<Param>, Type) {
        let this = || Param::new("self", Type::Ref(class.to_owned()));
        let reference = || Type::Ref(class.to_owned());
        let set = |ty: Type| Type::Set(Box::new(ty));
        let records = || Type::Map(Box::new(reference()), Box::new(Type::Record(class.to_owned())));
        let inner = |field: &Field| match &field.ty {
            Type::Map(key, value) => vec![Param::new("key", (**key).clone()), Param::new("value", (**value).clone())],
            Type::Set(of) => vec![Param::new("value", (**of).clone())],
            _ => Vec::new(),
        };
        match self {
            Accessor::All => (vec![], set(reference())),
            Accessor::AllRecords => (vec![], records()),
            Accessor::AllRecordsWhere => (vec![Param::new("expr", Type::Text)], records()),
            Accessor::Record => (vec![this()], Type::Record(class.to_owned())),
            Accessor::ByUuid => (vec![Param::new("uuid", Type::Text)], reference()),
            Accessor::ByName => (vec![Param::new("label", Type::Text)], set(reference())),
            Accessor::Create => (vec![Param::new("args", Type::Record(class.to_owned()))], reference()),
            Accessor::Destroy => (vec![this()], Type::Void),
            Accessor::Get(field) => (vec![this()], field.ty.clone()),
            Accessor::Set(field) => (vec![this(), Param::new("value", field.ty.clone())], Type::Void),
            Accessor::Add(field) => ([vec![this()], inner(field)].concat(), Type::Void),
            Accessor::Remove(field) => ([vec![this()], inner(field).into_iter().take(1).collect()].concat(), Type::Void),
        }
    }

    /// The release that had it first.
    pub(super) fn since<'c>(&self, class: &'c Class) -> &'c str
    where
        'a: 'c,
    {
        match self {
            Accessor::Get(field) | Accessor::Set(field) | Accessor::Add(field) | Accessor::Remove(field) if !field.since.is_empty() => {
                &field.since
            }
            _ => &class.since,
        }
    }
}
