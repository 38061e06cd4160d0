//! Chat templates: the Jinja dialect of Hugging Face, with limits against hostile files.
