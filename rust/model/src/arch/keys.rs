//! Hyper-parameters of an architecture: typed, named in errors, within bounds.
use crate::ModelError;
use crate::error::invalid;
use fastllm_gguf::Metadata;

/// The keys `{arch}.…` of a file.
pub struct Keys<'a> {
    pub metadata: &'a Metadata,
    pub arch: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    /// A count from 1 to `most`.
    pub fn count(&self, name: &str, most: usize) -> Result<Option<usize>, ModelError> {
        let key = self.key(name);
        match self.metadata.u64(&key)? {
            None => Ok(None),
            Some(n) if (1..=most as u64).contains(&n) => Ok(Some(n as usize)),
            Some(n) => invalid!("{key} is {n}, but must be 1 to {most}"),
        }
    }

    /// A count from 1 to `most`, where 0 stands for none.
    pub fn optional_count(&self, name: &str, most: usize) -> Result<Option<usize>, ModelError> {
        if self.metadata.u64(&self.key(name))? == Some(0) { Ok(None) } else { self.count(name, most) }
    }

    /// A count that must be there.
    pub fn required(&self, name: &str, most: usize) -> Result<usize, ModelError> {
        match self.count(name, most)? {
            Some(n) => Ok(n),
            None => invalid!("the file lacks the key {}", self.key(name)),
        }
    }

    /// A finite number above 0.
    pub fn positive(&self, name: &str) -> Result<Option<f32>, ModelError> {
        let key = self.key(name);
        match self.metadata.f32(&key)? {
            None => Ok(None),
            Some(x) if x.is_finite() && x > 0.0 => Ok(Some(x)),
            Some(x) => invalid!("{key} is {x}, but must be a number above 0"),
        }
    }

    /// A number above 0 that must be there.
    pub fn required_positive(&self, name: &str) -> Result<f32, ModelError> {
        match self.positive(name)? {
            Some(x) => Ok(x),
            None => invalid!("the file lacks the key {}", self.key(name)),
        }
    }

    /// Yes or no.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ModelError> {
        Ok(self.metadata.bool(&self.key(name))?)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, ModelError> {
        Ok(self.metadata.str(&self.key(name))?)
    }
}
