//! Templates from a hostile file: each must end in an error or a text within two seconds and 256 MB, and never take the process down.
//!
//! Every attack runs in a child process of its own, whose allocator counts. A crash of the child is a failure of its test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastllm_text::chat::{ChatTemplate, RenderInput, TemplateError};
use serde_json::{Map, json};

/// The system's allocator with a count of what is held now and at most.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the caller's own arguments; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `ptr` came from `alloc` above with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ATTACK: &str = "FASTLLM_TEST_ATTACK";

/// Compiles and renders, in a child, and holds the child to its bounds. The child is this program, running the named test alone.
fn attack(test: &str, source: impl FnOnce() -> String, expected: fn(&Result<String, TemplateError>) -> bool) {
    if std::env::var_os(ATTACK).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads", "1"])
            .env(ATTACK, test)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
        println!("{}", text.lines().find(|line| line.contains(" MB, ")).unwrap_or("no measurement"));
        return;
    }
    let source = source();
    PEAK.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
    let before = HELD.load(Ordering::Relaxed);
    let start = Instant::now();
    let result = render(&source);
    let (time, memory) = (start.elapsed(), PEAK.load(Ordering::Relaxed) - before);
    let kept = HELD.load(Ordering::Relaxed).saturating_sub(before);
    let shown = match &result {
        Ok(text) => format!("{} bytes of text", text.len()),
        Err(error) => format!("{error:?}"),
    };
    println!("{test}: {} MB, {time:?}, {shown}", memory >> 20);
    assert!(time < Duration::from_secs(2), "took {time:?}");
    assert!(memory < 256 << 20, "took {memory} bytes");
    let text = result.as_ref().map_or(0, String::capacity);
    assert!(kept < text + (1 << 20), "{kept} bytes are leaked");
    assert!(expected(&result), "unexpected: {shown:.300}");
}

fn render(source: &str) -> Result<String, TemplateError> {
    ChatTemplate::new(source, Some("<s>"), Some("</s>"))?.render(&RenderInput {
        messages: &json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]),
        tools: None,
        add_generation_prompt: true,
        now: None,
        variables: &Map::new(),
    })
}

fn refused(result: &Result<String, TemplateError>) -> bool {
    result.is_err()
}

/// Attacks that are no attack here: the operation is cheap or yields nothing.
fn harmless(_: &Result<String, TemplateError>) -> bool {
    true
}

macro_rules! attacks {
    ($($name:ident: $expected:ident, $source:expr;)*) => {
        $(#[test]
        fn $name() {
            attack(stringify!($name), || String::from($source), $expected);
        })*
    };
}

attacks! {
    // Values that contain themselves.
    namespace_in_itself: refused, "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}";
    namespace_in_itself_through_a_list: refused, "{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns.me }}";
    namespace_in_itself_through_a_mapping: refused, "{% set ns = namespace() %}{% set ns.me = {'a': (1, [ns])} %}{{ ns.me|tojson }}";
    namespace_in_itself_through_append: refused, "{% set ns = namespace(l=[]) %}{{ ns.l.append(ns) }}{{ ns.l }}";
    namespace_in_a_namespace: refused, "{% set a = namespace() %}{% set b = namespace(x=a) %}{% set a.x = b %}";
    namespace_of_its_loop: refused, "{% set ns = namespace() %}{% for x in [1] %}{% set ns.l = loop %}{% endfor %}{{ ns.l.changed(ns) }}";
    list_in_itself: harmless, "{% set l = [] %}{{ l.append(l) }}{{ l.append([l, l]) }}{{ l }}{{ l|tojson }}";
    list_grows_while_iterated: harmless, "{% set l = [1] %}{% for x in l %}{{ l.append(x) }}{% endfor %}{{ l }}";
    loop_changed_keeps_a_loop: harmless, "{% for x in [1, 2] %}{{ loop.changed(x) }}{% endfor %}";
    loop_changed_keeps_itself: harmless, "{% for x in [1, 2] %}{{ loop.changed([loop]) }}{% endfor %}";

    // Depth.
    brackets_nested: refused, "{{ ".to_owned() + &"(".repeat(40_000) + "1" + &")".repeat(40_000) + " }}";
    lists_nested: refused, "{{ ".to_owned() + &"[".repeat(40_000) + &"]".repeat(40_000) + " }}";
    mappings_nested: refused, "{{ ".to_owned() + &"{'a':".repeat(20_000) + "1" + &"}".repeat(20_000) + " }}";
    calls_nested: refused, "{{ ".to_owned() + &"range(".repeat(20_000) + "1" + &")".repeat(20_000) + " }}";
    not_nested: refused, "{{ ".to_owned() + &"not ".repeat(40_000) + "1 }}";
    minus_nested: refused, "{{ ".to_owned() + &"-".repeat(40_000) + "1 }}";
    conditionals_nested: refused, "{{ ".to_owned() + &"1 if 1 else ".repeat(20_000) + "1 }}";
    statements_nested: refused, "{% if true %}".repeat(20_000) + &"{% endif %}".repeat(20_000);
    loops_nested: refused, "{% for i in range(9) %}".repeat(60) + "x" + &"{% endfor %}".repeat(60);
    macros_nested: refused, "{% macro m() %}".repeat(20_000) + &"{% endmacro %}".repeat(20_000);
    elif_chain: refused, "{% if false %}".to_owned() + &"{% elif false %}".repeat(40_000) + "{% endif %}";
    plus_chain: refused, "{{ 1".to_owned() + &"+1".repeat(19_000) + " }}";
    tilde_chain: refused, "{{ 'a'".to_owned() + &"~'a'".repeat(19_000) + " }}";
    and_chain: refused, "{{ 1".to_owned() + &" and 1".repeat(19_000) + " }}";
    comparison_chain: refused, "{{ 1".to_owned() + &"==1".repeat(19_000) + " }}";
    filter_chain: refused, "{{ 'a'".to_owned() + &"|trim".repeat(19_000) + " }}";
    attribute_chain: refused, "{{ a".to_owned() + &".a".repeat(19_000) + " }}";
    subscript_chain: refused, "{{ a".to_owned() + &"[0]".repeat(19_000) + " }}";
    test_chain: refused, "{{ 1".to_owned() + &" is defined".repeat(19_000) + " }}";
    chains_in_chains: harmless, "{{ a".to_owned() + &("[a".to_owned() + &".b".repeat(30)).repeat(40) + &"]".repeat(40) + " }}";
    value_deepened_in_a_loop: refused,
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}";
    value_deepened_in_a_long_source: refused, "{% set x = [] %}".to_owned() + &"{% set x = [x] %}".repeat(30_000);
    value_deepened_by_batch: refused, "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = ns.x|batch(1) %}{% endfor %}";
    value_deepened_by_macros: refused, "{% macro f(x) %}{{ f([x]) }}{% endmacro %}{{ f(1) }}";
    value_deepened_by_groupby: refused,
        "{% set ns = namespace(x=[{'a': 1}]) %}{% for i in range(9999) %}{% set ns.x = [{'a': ns.x|groupby('a')}] %}{% endfor %}";
    lists_appended_top_down: harmless,
        "{% set l = [[],[],[],[],[],[],[],[]] %}{% for i in range(7) %}{{ l[i].append(l[i+1]) }}{{ l[i].append(l[i+1]) }}{% endfor %}{{ l }}";
    macro_recursion: refused, "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    macro_mutual_recursion: refused, "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}";
    caller_recursion: refused, "{% macro f() %}{{ caller() }}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{% call f() %}x{% endcall %}";
    loop_recursion: refused, "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}";

    // Strings and lists that explode.
    string_doubled_in_a_loop: refused, "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
    string_doubled_in_a_source: refused, "{% set s = 'xxxxxxxx' %}".to_owned() + &"{% set s = s ~ s %}".repeat(60) + "{{ s }}";
    string_added_in_a_source: refused, "{% set s = 'xxxxxxxx' %}".to_owned() + &"{% set s = s + s %}".repeat(60) + "{{ s }}";
    string_doubled_by_set_blocks: refused, "{% set s = 'xxxxxxxx' %}".to_owned() + &"{% set s %}{{ s }}{{ s }}{% endset %}".repeat(60);
    string_doubled_by_with: refused,
        "{% set s = 'xxxxxxxx' %}".to_owned() + &"{% with s = s ~ s ~ s ~ s %}".repeat(50) + &"{% endwith %}".repeat(50);
    string_doubled_by_macros: refused, "{% macro f(s) %}{{ f(s ~ s) }}{% endmacro %}{{ f('xxxxxxxx') }}";
    string_repeated: refused, "{{ 'x' * 10**9 }}";
    string_repeated_from_the_left: refused, "{{ 10**9 * 'x' }}";
    string_repeated_by_a_huge_number: refused, "{{ 'x' * 10**30 }}";
    string_repeated_often: refused, "{% for i in range(99999) %}{% set s = 'x' * 10**6 %}{% endfor %}";
    list_repeated: refused, "{{ [1] * 10**9 }}";
    list_repeated_and_compared: refused, "{{ [[0] * 10**8] == [[0] * 10**8] }}";
    list_doubled: refused, "{% set l = [1] %}".to_owned() + &"{% set l = l + l %}".repeat(60) + "{{ l|length }}";
    list_doubled_by_with: refused, "{% set l = [1] %}".to_owned() + &"{% with l = l + l %}".repeat(60) + &"{% endwith %}".repeat(60);
    list_of_itself_twice: refused, "{% set l = [1] %}".to_owned() + &"{% set l = [l, l] %}".repeat(60) + "{{ l }}";
    list_of_itself_twice_by_with: refused, "{% set l = [1] %}".to_owned() + &"{% with l = [l, l] %}".repeat(60) + "{{ l }}" + &"{% endwith %}".repeat(60);
    list_of_itself_compared: refused, "{% set l = [1] %}".to_owned() + &"{% set l = [l, l] %}".repeat(40) + "{{ l == l }}";
    list_extended_by_itself: refused, "{% set l = [1] %}".to_owned() + &"{{ l.extend(l) }}".repeat(60);
    append_of_copies: refused, "{% set l = [1] %}".to_owned() + &"{{ l.append(l) }}".repeat(60);
    replace_blow_up: refused, "{% set s = 'x' * 5000 %}{% for i in range(9) %}{% set s = s|replace('x', s) %}{{ s|length }}{% endfor %}";
    replace_method_blow_up: refused, "{% set s = 'x' * 9000 %}{{ s.replace('x', s).replace('x', s) }}";
    replace_of_nothing: refused, "{% set s = 'x' * 9000 %}{{ s.replace('', s).replace('', s) }}";
    join_blow_up: refused, "{% set s = 'x' * 100000 %}{{ s|join(s) }}";
    join_method_blow_up: refused, "{% set s = 'x' * 100000 %}{{ s.join(s|list) }}";
    split_blow_up: refused, "{% set s = 'x ' * 1000000 %}{% for i in range(999) %}{% set l = s.split() %}{% endfor %}";
    format_width: refused, "{{ '%1000000000d' % 1 }}";
    format_width_of_an_argument: refused, "{{ '%*d' % (10**9, 1) }}";
    format_precision: refused, "{{ '%.1000000000f' % 1.5 }}";
    format_width_of_a_filter: refused, "{{ '%1000000000s'|format(1) }}";
    format_method_width: refused, "{{ '{:1000000000}'.format(1) }}";
    format_method_nested: refused, "{{ '{:{}}'.format(1, 10**9) }}";
    padding_methods: refused, "{{ 'x'.ljust(10**9) }}{{ 'x'.center(10**9) }}{{ 'x'.zfill(10**9) }}";
    center_filter: refused, "{{ 'x'|center(10**10) }}";
    indent_width: refused, "{{ 'a\\nb'|indent(10**9) }}";
    indent_text: refused, "{% set s = 'x\\n' * 100000 %}{{ s|indent(s) }}";
    tojson_indent: refused, "{{ [1]|tojson(indent=10**9) }}";
    tojson_indent_deep: refused, "{{ [[[[1]]]]|tojson(indent=10**7) }}";
    tojson_separators: refused, "{% set s = 'x' * 100000 %}{{ range(99999)|list|tojson(separators=(s, s)) }}";
    from_json_deep: refused, "{{ ('[' * 100000)|from_json }}";
    from_json_wide: refused, "{% for i in range(9999) %}{% set x = ('[' ~ '1,' * 100000 ~ '1]')|from_json %}{% endfor %}";
    batch_fill: refused, "{{ [1]|batch(10**9, 'x') }}";
    slice_count: refused, "{{ [1]|slice(10**9) }}";
    round_precision: harmless, "{{ 1.5|round(10**9) }}{{ 1.5|round(-10**9) }}";
    range_huge: refused, "{{ range(10**9)|list }}";
    range_huge_negative: refused, "{{ range(0, -(10**18), -1)|list }}";
    range_extremes: refused, "{{ range(-9223372036854775807, 9223372036854775807, 1) }}";
    ranges_in_loops: refused, "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    output_in_loops: refused, "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}";
    text_in_loops: refused, "{% for a in range(99999) %}{% for b in range(99) %}".to_owned() + &"x".repeat(5000) + "{% endfor %}{% endfor %}";
    macros_made_in_loops: refused,
        "{% for i in range(99999) %}{% for j in range(99) %}{% macro f(a) %}{{ i }}{{ j }}{% endmacro %}{% endfor %}{% endfor %}";
    sort_in_loops: refused, "{% for i in range(99999) %}{% set x = range(9999)|list|sort(reverse=true) %}{% endfor %}";
    unique_is_quadratic: refused, "{{ range(99999)|list|unique|list|length }}";
    in_is_linear: refused, "{% set l = range(99999)|list %}{% for i in l %}{{ -1 in l }}{% endfor %}";
    index_is_linear: refused, "{% set s = 'ä' * 900000 %}{% for i in range(99999) %}{% set x = s[899999] %}{% endfor %}";
    string_slices_in_loops: refused, "{% set s = 'ä' * 900000 %}{% for i in range(99999) %}{% set x = s[1:] %}{% endfor %}";
    find_in_loops: refused, "{% set s = 'ä' * 900000 %}{% for i in range(99999) %}{% set x = s.find('b') %}{% endfor %}";
    attribute_path_long: harmless, "{{ messages|map(attribute='a.' * 100000)|list }}";
    strftime_long: refused, "{{ strftime_now('%c' * 100000000) }}";
    strftime_in_loops: refused, "{% set s = '%c' * 100000 %}{% for i in range(99999) %}{% set x = strftime_now(s) %}{% endfor %}";
    changed_in_loops: refused, "{% set l = range(99999)|list %}{% for i in l %}{% if loop.changed(l) %}{% endif %}{% endfor %}";
    strip_of_many_characters: refused,
        "{% set s = 'x' * 900000 %}{% set t = 'y' * 900000 ~ 'x' %}{% for i in range(9999) %}{% set x = s.strip(t) %}{% endfor %}";
    arguments_in_loops: refused, "{% set t = 'y' * 9000000 %}{% for i in range(99999) %}{{ 'x'.strip(t) }}{{ 'x'.find(t) }}{{ 'x'|trim(t) }}{% endfor %}";
    arguments_of_map: refused, "{% set t = 'y' * 9000000 %}{{ (['x'] * 99999)|map('trim', t)|list|length }}";
    equal_strings_in_loops: refused, "{% set s = 'x' * 9000000 %}{% for i in range(99999) %}{% if s == s %}{% endif %}{% endfor %}";
    long_keys_in_loops: refused, "{% set s = 'x' * 9000000 %}{% set d = {s: 1} %}{% for i in range(99999) %}{{ d[s] }}{{ d.get(s) }}{{ s in d }}{% endfor %}";
    list_as_a_key: harmless, "{% set l = [1] %}{{ {'a': 1}.get([l, l]) }}{{ [l] in {'a': 1} }}";
    sort_by_a_long_key: refused, "{{ ([{'s': 'x' * 900000}] * 99999)|sort(attribute='s')|length }}";
    select_long_strings: refused, "{{ (['x' * 900000] * 99999)|select('lower')|list|length }}";
    attribute_path_of_strings: refused, "{{ (['x'] * 99999)|map(attribute='0' ~ '.0' * 100000)|list|length }}";
    affixes: refused, "{% set s = 'x' * 900000 %}{{ s.startswith((s ~ 'y',) * 99999) }}";
    insert_in_loops: refused, "{% set l = range(99999)|list %}{% for i in range(99999) %}{% set _ = l.insert(0, 1) %}{% endfor %}";
    many_arguments: refused, "{{ f(".to_owned() + &"1,".repeat(70_000) + ") }}";
    many_elements: refused, "{{ [".to_owned() + &"1,".repeat(70_000) + "] }}";
    many_parameters: refused, "{% macro f(".to_owned() + &"a,".repeat(70_000) + ") %}{% endmacro %}";
    many_targets: refused, "{% set ".to_owned() + &"a,".repeat(70_000) + " = 1 %}";
    many_variables: harmless, (0..20_000).fold(String::new(), |source, i| source + "{% set v" + &i.to_string() + " = 1 %}");

    // Odds and ends that took other engines down.
    empty_slice_backwards: harmless, "{{ [][::-1] }}{{ ''[::-1] }}{{ ()[::-1] }}{{ [1][5:-9:-2] }}";
    slice_extremes: harmless, "{{ 'abc'[-9223372036854775807:9223372036854775807:9223372036854775807] }}{{ [1, 2][::-9223372036854775807] }}";
    slice_of_nothing: refused, "{{ [1][::0] }}";
    integer_extremes: refused, "{{ (-9223372036854775807 - 1) // -1 }}{{ 2**126 * 2**126 }}";
    integer_minimum: harmless, "{{ (-170141183460469231731687303715884105727 - 1)|abs }}";
    integer_power: refused, "{{ 9 ** 9 ** 9 }}";
    modulo_by_zero: refused, "{{ 1 % 0 }}";
    float_extremes: harmless, "{{ 1e308 * 10 }}{{ (1e308 * 10)|int }}{{ [1e308 * 10, -(1e308 * 10)]|sort }}{{ (1e308 * 10)|tojson }}";
    debug_function: refused, "{{ debug() }}";
    unknown_statement: refused, "{% include 'x' %}";
    template_inheritance: refused, "{% extends 'x' %}{% block a %}{% endblock %}";
    dunder_attributes: harmless, "{{ ''.__class__.__mro__ }}";
    unclosed_tag: refused, "{{ 'a".to_owned() + &"a".repeat(100_000);
    unclosed_comment: refused, "{#".repeat(100_000);
    unclosed_raw: refused, "{% raw %}".to_owned() + &"{% endra".repeat(20_000);
    tags_of_nothing: refused, "{{}}".repeat(10_000);
    source_too_large: refused, "x".repeat(2 << 20);
    nul_and_controls: harmless, "\0\u{1}\u{feff}{{ '\0' }}\u{2028}";
    shadowed_names: harmless, "{% set range = 1 %}{% set namespace = 2 %}{% set loop = 3 %}{{ range }}{{ loop }}";
}
