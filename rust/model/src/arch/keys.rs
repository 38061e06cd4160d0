//! Hyper-parameters of an architecture: typed, named in errors, within bounds.
//!
//! Reading a key declares it understood: [`super::understood`] refuses a file with keys that its family has not read.
use crate::ModelError;
use crate::error::invalid;
use fastllm_gguf::{Metadata, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The keys `{arch}.…` of a file.
pub struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'a str,
    /// Names that were asked for, without the architecture.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    /// The keys of an architecture, none of them read.
    pub fn new(metadata: &'a Metadata, arch: &'a str) -> Keys<'a> {
        Keys { metadata, arch, read: RefCell::default() }
    }

    /// `general.architecture`.
    pub fn arch(&self) -> &'a str {
        self.arch
    }

    /// The full name of a key.
    pub fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn key(&self, name: &str) -> String {
        if !self.read.borrow().contains(name) {
            self.read.borrow_mut().insert(name.to_owned());
        }
        self.name(name)
    }

    /// Names without the architecture, and values, of the keys that nothing has read.
    pub fn unread(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        let (metadata, arch) = (self.metadata, self.arch);
        let ours = metadata.iter().filter_map(move |(key, value)| Some((key.strip_prefix(arch)?.strip_prefix('.')?, value)));
        ours.filter(|(name, _)| !self.read.borrow().contains(*name))
    }

    /// A value of any type, which is not read by that.
    pub fn peek(&self, name: &str) -> Option<Value<'a>> {
        self.metadata.get(&self.name(name))
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

    /// A count from 1 to `most` for each of `layers` layers, from one number or from an array with one for each of `blocks` blocks (the
    /// layers and a multi-token-prediction tail) or for each layer.
    pub fn per_layer(&self, name: &str, most: usize, layers: usize, blocks: usize) -> Result<Option<Vec<usize>>, ModelError> {
        let key = self.key(name);
        let Some(array) = self.metadata.get(&key).and_then(|v| v.as_array()) else {
            return Ok(self.count(name, most)?.map(|n| vec![n; layers]));
        };
        if array.len() != blocks && array.len() != layers {
            return invalid!("{key} has {} entries for {blocks} layers", array.len());
        }
        let mut counts = Vec::with_capacity(layers);
        for (i, value) in array.iter().take(layers).enumerate() {
            match value.as_u64() {
                Some(n) if (1..=most as u64).contains(&n) => counts.push(n as usize),
                Some(n) => return invalid!("{key} is {n} for layer {i}, but must be 1 to {most} for every layer of this architecture"),
                None => return invalid!("{key} is an array of {}, but must be one of counts", array.kind()),
            }
        }
        Ok(Some(counts))
    }

    /// A flag for each of `layers` layers, from an array as for [`per_layer`](Self::per_layer). `None` if the value is no array.
    pub fn flags(&self, name: &str, layers: usize, blocks: usize) -> Result<Option<Vec<bool>>, ModelError> {
        let key = self.key(name);
        let Some(array) = self.metadata.get(&key).and_then(|v| v.as_array()) else { return Ok(None) };
        if array.len() != blocks && array.len() != layers {
            return invalid!("{key} has {} entries for {blocks} layers", array.len());
        }
        // Some writers have no arrays of bools.
        let flag = |v: Value<'_>| v.as_bool().or_else(|| Some(v.as_u64()? != 0));
        match array.iter().take(layers).map(flag).collect() {
            Some(flags) => Ok(Some(flags)),
            None => invalid!("{key} is an array of {}, but must be one of bools", array.kind()),
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

    /// A finite number above 0, where 0 stands for none.
    pub fn factor(&self, name: &str) -> Result<Option<f32>, ModelError> {
        if self.metadata.f32(&self.key(name))? == Some(0.0) { Ok(None) } else { self.positive(name) }
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
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ModelError> {
        Ok(self.metadata.str(&self.key(name))?)
    }
}
