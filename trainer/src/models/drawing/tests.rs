//! Checks that the drawing of every architecture is XML with a box per stage, inside the picture, without overlaps.

use roxmltree::{Document, Node};

use super::super::describe::describe;
use super::super::registry::TABLE;
use super::*;

/// Left, top, right and bottom.
type Edges = [f64; 4];

fn number(node: Node<'_, '_>, name: &str) -> f64 {
    let words = node.attribute(name).expect("an attribute");
    words.parse().expect("a number")
}

/// Returns the name and edges of each box, in the order of the file.
fn boxes(drawing: &Document<'_>) -> Vec<(String, Edges)> {
    let mut boxes = Vec::new();
    for node in drawing.descendants() {
        let Some(name) = node.attribute("data-name") else {
            continue;
        };

        let rect = node
            .children()
            .find(|child| child.has_tag_name(("http://www.w3.org/2000/svg", "rect")))
            .expect("a frame");

        let [x, y] = ["x", "y"].map(|name| number(rect, name));
        let [width, height] = ["width", "height"].map(|name| number(rect, name));
        boxes.push((name.to_owned(), [x, y, x + width, y + height]));
    }

    boxes
}

#[test]
fn every_architecture_has_a_box_for_each_stage_inside_the_picture_and_apart() {
    for architecture in TABLE {
        let model = describe(architecture.name, None, None).expect("a model");
        let text = svg(&model);
        let drawing = Document::parse(&text).expect("XML");
        let boxes = boxes(&drawing);

        let mut wanted: Vec<String> = model.inputs.iter().map(|x| x.name.to_owned()).collect();
        wanted.extend(model.stages.iter().map(|stage| stage.name.clone()));
        wanted.extend(
            model
                .heads
                .iter()
                .map(|(name, _)| format!("head of {name}")),
        );
        let mut drawn: Vec<String> = boxes.iter().map(|(name, _)| name.clone()).collect();
        wanted.sort();
        drawn.sort();
        assert_eq!(drawn, wanted, "{}", model.name);

        let root = drawing.root_element();
        let [width, height] = ["width", "height"].map(|name| number(root, name));
        for (index, (name, edges)) in boxes.iter().enumerate() {
            let [left, top, right, bottom] = edges;
            assert!(
                *left >= 0.0 && *top >= 0.0 && *right <= width && *bottom <= height,
                "{}: {name} leaves the picture: {edges:?} in {width} x {height}",
                model.name
            );
            for (other, [l, t, r, b]) in &boxes[index + 1..] {
                assert!(
                    right <= l || r <= left || bottom <= t || b <= top,
                    "{}: {name} lies over {other}",
                    model.name
                );
            }
        }
    }
}

#[test]
fn parameters_of_all_boxes_are_those_of_the_model() {
    for architecture in TABLE {
        let model = describe(architecture.name, None, None).expect("a model");
        let stages: i64 = model.stages.iter().map(|stage| stage.parameters).sum();
        let heads = model.heads.iter();
        let heads: i64 = heads
            .map(|(_, classes)| model.head_parameters(*classes))
            .sum();
        assert_eq!(stages + heads, model.parameters, "{}", model.name);
    }
}

#[test]
fn branches_lie_side_by_side_and_meet() {
    let model = describe("fusion", None, None).expect("a model");
    let names: Vec<&str> = model.branches.iter().map(|branch| branch.name).collect();
    assert_eq!(names, ["spectrogram", "metadata", "artist", "album"]);

    let text = svg(&model);
    let drawing = Document::parse(&text).expect("XML");
    let boxes = boxes(&drawing);
    let edges = |name: &str| {
        let found = boxes.iter().find(|(own, _)| own == name);
        found.expect(name).1
    };

    assert_eq!(edges("artist")[1], edges("album")[1], "one height");
    assert!(edges("artist")[2] < edges("album")[0], "apart");
    assert!(
        edges("summary")[3] < edges("side by side")[1],
        "the join is below the longest branch"
    );

    let parallel = describe("parallel-cnn-bigru", None, None).expect("a model");
    let of = |branch: Option<&str>| {
        let stages = parallel.stages.iter().filter(|x| x.branch == branch);
        stages.map(|x| x.name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(
        of(Some("convolutions")),
        ["conv1", "conv2", "conv3", "conv4", "conv5"]
    );
    assert_eq!(of(Some("recurrent")), ["steps", "recurrent"]);
    assert_eq!(of(None), ["side by side"]);
}

#[test]
fn operations_are_told_with_their_settings() {
    let model = describe("cnn2d", None, None).expect("a model");
    assert_eq!(
        operations(&model.stages[0]),
        [
            "2-D convolution 3 × 3, padding 1, 32 channels",
            "batch norm",
            "ReLU",
            "max pool 3 × 3, stride 2, padding 1",
            "dropout 0.2"
        ]
    );
    assert_eq!(model.stages[0].parameters, 9 * 32 + 2 * 32);

    let resnet = describe("resnet50", None, None).expect("a model");
    assert_eq!(
        operations(&resnet.stages[2]),
        [
            "bottleneck 1 × 1, 3 × 3, 1 × 1, 128 to 512 channels, stride 2, 1 × 1 in the shortcut",
            "bottleneck 1 × 1, 3 × 3, 1 × 1, 128 to 512 channels, 3 times"
        ]
    );
}

#[test]
fn names_of_users_cannot_leave_their_text() {
    let mut model = describe("mlp-1", None, None).expect("a model");
    let name = "a <b> & \"c\" 'd' \u{7} ü".to_owned();
    model.heads = vec![(name, 3), ("second".to_owned(), 2)];
    let text = svg(&model);
    let drawing = Document::parse(&text).expect("XML");
    let boxes = boxes(&drawing);
    let wanted = "head of a <b> & \"c\" 'd' \u{FFFD} ü";
    assert!(boxes.iter().any(|(name, _)| name == wanted), "{boxes:?}");
}

#[test]
fn a_drawing_says_what_it_is_and_knows_the_dark() {
    let text = svg(&describe("crnn", None, None).expect("a model"));
    let drawing = Document::parse(&text).expect("XML");
    let root = drawing.root_element();
    assert_eq!(root.attribute("role"), Some("img"));

    let described = root.attribute("aria-labelledby").expect("a name");
    for id in described.split(' ') {
        let told = drawing
            .descendants()
            .find(|node| node.attribute("id") == Some(id));
        let words = told.and_then(|node| node.text()).unwrap_or_default();
        assert!(
            words.contains("crnn") || words.contains("Stage conv1"),
            "{words}"
        );
    }
    assert!(text.contains("@media (prefers-color-scheme:dark)"));
    // The drawing refers to no external resources.
    assert_eq!(text.matches("http").count(), 1, "the name space alone");
}
