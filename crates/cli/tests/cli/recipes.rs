//! Recipes, times and learning rates through the command line.

use crate::harness::Place;

const RECIPE: &str = r#"
epochs = 2.5
batch_size = 4
label_smoothing = 0.1
views = "mirror"
[optimizer]
class = "SGD"
learning_rate = 0.05
momentum = 0.9
[schedule]
class = "OneCycle"
[averaging]
class = "Exponential"
decay = 0.9
[mixing]
mixup = 0.2
[[augment]]
class = "AlternatingFlip"
[[augment]]
class = "RandAugment"
[[groups]]
parameters = "*/bias"
weight_decay = 0.0
"#;

#[test]
fn a_recipe_decides_what_is_not_typed_and_is_kept_with_the_run() {
    let place = Place::new();
    place.photos("photos", 10);
    place.write("recipe.toml", RECIPE);
    let run = place.run("train photos --recipe recipe.toml --seed 3 --output a --json").succeeds();
    let json = run.json();
    assert_eq!(json["epochs"], 3, "{json}");
    assert_eq!(json["over_views"]["views"], "mirror", "{json}");
    let config = place.text("a/config.toml");
    for part in ["epochs = 2.5", "batch_size = 4", "optimizer = \"sgd\"", "[recipe.averaging]", "[[recipe.augment]]"] {
        assert!(config.contains(part), "{part}: {config}");
    }
    // The run's own settings give the same model, and what is typed counts more.
    place.run("train --config a/config.toml --output b --threads 1").succeeds();
    let model = |name: &str| std::fs::read(place.path(&format!("{name}/model.safetensors"))).unwrap();
    assert_eq!(model("a"), model("b"));
    let typed = "train photos --recipe recipe.toml --epochs 1 --optimizer adam --output c";
    let run = place.run(typed).succeeds();
    assert!(run.stderr().contains("adam at 0.001"), "{}", run.stderr());
    assert!(place.text("c/config.toml").contains("epochs = 1\n"), "{}", place.text("c/config.toml"));
}

#[test]
fn recipes_that_make_no_sense_are_refused() {
    let place = Place::new();
    place.photos("photos", 4);
    place.write("key.toml", "epochs = 2\n[optimizer]\nclass = \"SGD\"\nmomentun = 0.9\n");
    place.write("rate.toml", "[schedule]\nclass = \"Cosine\"\nwarm_up = 2.0\n");
    place.write("colour.toml", "[[augment]]\nclass = \"ColorJitter\"\nhue = 0.1\n");
    place.write("group.toml", "[[groups]]\nparameters = \"nothing\"\n");
    for (line, code, parts) in [
        ("train photos --recipe key.toml", 2, &["key.toml", "line 4", "did you mean momentum?"][..]),
        ("train photos --recipe rate.toml", 2, &["rate.toml", "warm_up"]),
        ("train photos --recipe missing.toml", 2, &["missing.toml"]),
        ("train photos --recipe airbench", 2, &["did you mean airbench94?"]),
        ("train photos --recipe colour.toml", 1, &["ColorJitter", "3 channels, received 1"]),
        ("train photos --recipe group.toml", 1, &["no layer is named \"nothing\""]),
        ("train photos --time 10", 2, &["--time"]),
        ("train photos --time 10m --epochs 3", 2, &["--epochs"]),
    ] {
        place.run(line).fails(code, parts);
    }
    assert!(!place.exists("runs"));
}

#[test]
fn a_model_learns_from_another() {
    let place = Place::new();
    place.trained();
    let run =
        place.run("train photos --teacher run/model.safetensors --epochs 2 --temperature 2 --output a").succeeds();
    let config = place.text("a/config.toml");
    for part in ["[distillation]\n", "teacher = \"run/model.safetensors\"", "temperature = 2.0"] {
        assert!(config.contains(part), "{part}: {config}\n{}", run.stderr());
    }
    place.run("train --config a/config.toml --output b --threads 1").succeeds();
    let model = |name: &str| std::fs::read(place.path(&format!("{name}/model.safetensors"))).unwrap();
    assert_eq!(model("a"), model("b"));
    // A recipe says the same, and what is typed counts more.
    place
        .write("recipe.toml", "[distillation]\nteacher = \"run/model.safetensors\"\ntemperature = 3.0\nweight = 0.7\n");
    place.run("train photos --recipe recipe.toml --epochs 2 --temperature 2 --output c").succeeds();
    assert_eq!(model("a"), model("c"));
    place.run("train photos --recipe recipe.toml --epochs 2 --output d").succeeds();
    assert_ne!(model("a"), model("d"));
    place.write("wrong.toml", "[distillation]\nteacher = \"run/model.safetensors\"\nweight = 2.0\n");
    for class in ["above", "left"] {
        (0..4).for_each(|n| place.image(&format!("others/{class}/{n}.png"), class == "above", n));
    }
    for (line, code, parts) in [
        ("train photos --temperature 2", 2, &["--temperature", "--teacher MODEL"][..]),
        ("train photos --teacher run/model.safetensors --teacher-weight 2", 2, &["--teacher-weight", "from 0 to 1"]),
        ("train photos --recipe wrong.toml", 2, &["wrong.toml", "a weight from 0 to 1, received 2"]),
        ("train photos --teacher missing", 1, &["missing"]),
        (
            "train others --teacher run/model.safetensors",
            1,
            &["class 1 is \"below\" for the teacher, but \"left\" in the data"],
        ),
    ] {
        place.run(line).fails(code, parts);
    }
}

#[test]
fn a_time_decides_the_epochs() {
    let place = Place::new();
    place.photos("photos", 10);
    let run = place.run("train photos --time 1s --batch-size 1 --output run").succeeds();
    assert!(run.stderr().contains(" epochs in 1.0s"), "{}", run.stderr());
    assert!(place.text("run/config.toml").contains("epochs = "), "{}", place.text("run/config.toml"));
}

#[test]
fn a_learning_rate_is_found_and_drawn() {
    let place = Place::new();
    place.photos("photos", 10);
    let run = place.run("find-lr photos --batch-size 8 --steps 60 --optimizer sgd --json").succeeds();
    let json = run.json();
    let suggestion = json["suggestion"].as_f64().expect("a suggestion");
    assert!((1e-5..10.0).contains(&suggestion), "{json}");
    assert!(place.text("find-lr.svg").contains("suggested"));
    assert!(!place.exists("runs"));
    place.run("find-lr photos --lowest 1 --highest 0.1").fails(1, &["the first one lower"]);
}

#[test]
fn predictions_are_averaged_over_views() {
    let place = Place::new();
    place.trained();
    let loss = |line: &str| place.run(line).succeeds().json()["loss"].as_f64().expect("a loss");
    let one = loss("evaluate run/model.safetensors photos --json");
    let several = loss("evaluate run/model.safetensors photos --json --views mirror_translate");
    assert!(several.is_finite() && one != several, "{one} {several}");
    place.run("predict run/model.safetensors photos/above/0.png --views mirror").succeeds();
    place.run("predict run/model.safetensors photos/above/0.png --views all").fails(2, &["mirror_translate"]);
}
