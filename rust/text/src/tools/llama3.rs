//! Llama 3: `{"name": …, "parameters": {…}}` as the whole answer, or after `<|python_tag|>`; several with a semicolon between.

use super::call::Shape;
use super::constraint::Lark;

pub(super) const OPENERS: &[&str] = &["<|python_tag|>"];
pub(super) const MARKERS: &[&str] = &[];
pub(super) const TAGGED: Shape = Shape { before: &[], after: &[], between: &[";"], guess: false };
/// Also an answer in JSON begins like this.
pub(super) const BARE: Shape = Shape { guess: true, ..TAGGED };

pub(super) fn grammar(lark: &mut Lark<'_>) -> String {
    let call = lark.objects("name", "parameters");
    lark.repeated(&call, "\"; \"")
}
