//! The schemas of the contract's types, as both documents have them.

use std::collections::BTreeMap;

use utoipa::{
    ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AdditionalProperties, Type},
    },
};

/// Schemas by the names that they are referred to by.
pub(crate) type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Adds what `T` is made of, and `T` itself.
pub(crate) fn add<T: ToSchema>(schemas: &mut Schemas) {
    add_parts::<T>(schemas);
    schemas.insert(T::name().into_owned(), tidy(T::schema()));
}

/// Adds what `T` is made of.
pub(crate) fn add_parts<T: ToSchema>(schemas: &mut Schemas) {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    schemas.extend(parts.into_iter().map(|(name, schema)| (name, tidy(schema))));
}

/// The schema in plain sentences, and open to the fields that are yet to come.
fn tidy(mut schema: RefOr<Schema>) -> RefOr<Schema> {
    visit(&mut schema);
    schema
}

fn visit(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::Ref(reference) => reference.description = plain(&reference.description),
        RefOr::T(Schema::Object(object)) => {
            describe(&mut object.description);
            if object.schema_type == Type::Object.into() && object.additional_properties.is_none() {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(true)));
            }
            object.properties.values_mut().for_each(visit);
        }
        RefOr::T(Schema::Array(array)) => describe(&mut array.description),
        RefOr::T(Schema::OneOf(one)) => {
            describe(&mut one.description);
            one.items.iter_mut().for_each(visit);
        }
        RefOr::T(Schema::AllOf(all)) => all.items.iter_mut().for_each(visit),
        RefOr::T(Schema::AnyOf(any)) => any.items.iter_mut().for_each(visit),
        RefOr::T(_) => {}
    }
}

fn describe(description: &mut Option<String>) {
    *description = description.as_deref().map(plain);
}

/// The first paragraph of what Rust's readers are told, in one line. What comes after it is for them alone.
pub(crate) fn plain(text: &str) -> String {
    text.split("\n\n").next().unwrap_or_default().replace('\n', " ")
}
