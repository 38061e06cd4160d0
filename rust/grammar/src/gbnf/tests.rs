use super::*;

#[track_caller]
fn fails(text: &str, line: usize, column: usize, part: &str) {
    match to_lark(text) {
        Err(GrammarError::Syntax { language: "GBNF", line: l, column: c, what }) => {
            assert!((l, c) == (line, column) && what.contains(part), "{text:?}: line {l}, column {c}: {what}");
        }
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn regular_rules_are_terminals_and_recursive_ones_rules() {
    let lark = to_lark("root ::= \"a\" list\nlist ::= \"[\" ws root* \"]\" | digit{2,3}\nws ::= [ \\t]*\ndigit ::= [0-9]").unwrap();
    let expected = concat!(
        "start: r0\n",
        "r0: \"a\" r1 \n",
        "r1: T1 (r0 )* \"]\"  | T3 \n",
        "R2: (/[\\x{20}\\x{9}]/)* \n",
        "R3: /[\\x{30}-\\x{39}]/ \n",
        "T1: \"[\" R2 \n",
        "T3: (R3){2,3} \n",
    );
    assert_eq!(lark, expected);
}

#[test]
fn terminals_with_a_border_in_doubt_are_taken_apart() {
    // After a letter comes a blank, which the call could take too.
    let lark = to_lark("root ::= e\ne ::= f ws (\"+\" ws f)*\nf ::= v | v ws \"(\" e \")\"\nv ::= [a-z]+\nws ::= \" \"?").unwrap();
    assert!(lark.contains("r2: r4  | r4 R3 \"(\" r1 \")\" \n"), "{lark}");
    // Two terminals of which one may go on where the other ends.
    let lark = to_lark("root ::= a root? \"!\"\na ::= [a-z]+ | \"ab\"").unwrap();
    assert!(lark.contains("r1: (T"), "{lark}");
}

#[test]
fn escapes_and_classes() {
    let lark = to_lark(r#"root ::= "\x41\u00e9\U0001F600\n\t\\\"" [^\]\-a-c\x00-\x1F] . [-x] [x-]"#).unwrap();
    let expected = "start: R0\nR0: \"Aé😀\\n\\t\\\\\\\"\" /[^\\x{5d}\\x{2d}\\x{61}-\\x{63}\\x{0}-\\x{1f}]/ /(?s:.)/ /[\\x{2d}\\x{78}]/ /[\\x{78}\\x{2d}]/ \n";
    assert_eq!(lark, expected);
}

#[test]
fn layout_is_free_where_it_can_be() {
    let one = to_lark("root ::= (\"a\" | \"b\")? \"c\" | \"d\"").unwrap();
    let other = to_lark("# comment\n\nroot   ::=   # comment\n  (\n \"a\"\n | # comment\n \"b\" )? \"c\"\n  |\n \"d\"\r\n\n# end").unwrap();
    assert_eq!(one, other);
    assert_eq!(to_lark("root ::= \"a\"\n  | \"b\"\n").unwrap(), to_lark("root ::= \"a\" | \"b\"").unwrap());
    assert!(to_lark("root ::= | \"b\"").unwrap().contains("R0: \"\" | \"b\""));
}

#[test]
fn errors_have_a_place() {
    fails("", 1, 1, "root");
    fails("a ::= \"b\"", 1, 1, "root");
    fails("root ::= x", 1, 10, "\"x\" is not defined");
    fails("root ::= \"a\"\nroot ::= \"b\"", 2, 1, "twice");
    fails("root ::= \"a", 1, 10, "never closed");
    fails("root ::= [a", 1, 10, "never closed");
    fails("root ::= []", 1, 10, "without characters");
    fails("root ::= (\"a\"", 1, 10, "never closed");
    fails("root ::= \"a\")", 1, 13, "no part of a rule");
    fails("root ::= \"\\q\"", 1, 11, "no escape");
    fails("root ::= \"é\\x4\"", 1, 12, "hexadecimal");
    fails("root ::= \"\\ud800\"", 1, 11, "hexadecimal");
    fails("root ::= [z-a]", 1, 11, "wrong way round");
    fails("root ::= \"a\"{3,2}", 1, 13, "at least 3");
    fails("root ::= \"a\"{}", 1, 13, "repetitions are");
    fails("root ::= \"a\"{x}", 1, 13, "repetitions are");
    fails("root = \"a\"", 1, 6, "::=");
    fails("::= \"a\"", 1, 1, "begins with its name");
    fails("root ::= * \"a\"", 1, 10, "no part of a rule");
    fails("root ::= !<|x|>", 1, 10, "negated");
    fails("root ::= <x", 1, 10, "special token");
}

#[test]
fn left_recursion_is_refused_however_it_hides() {
    fails("root ::= root \"a\" | \"b\"", 1, 10, "left recursion");
    fails("root ::= a\na ::= b \"x\"\nb ::= a | \"y\"", 3, 7, "left recursion");
    fails("root ::= e root\ne ::= \"\" | \"x\"", 1, 12, "left recursion");
    fails("root ::= \"x\"* root", 1, 15, "left recursion");
    fails("root ::= (\"x\" | (root)?)+", 1, 18, "left recursion");
    for fine in ["root ::= \"a\" root?", "root ::= \"(\" root \")\" | \"x\"", "root ::= a root | \"x\"\na ::= \"y\""] {
        to_lark(fine).unwrap();
    }
}
