//! A trained network as it is kept and sent: plain numbers and what one has to know to use them.

mod safetensors;

use std::collections::BTreeSet;

use serde_json::json;

use crate::text;
use safetensors::{File, Table, Tensor, Written};

/// A dense network: input → hidden layers with ReLU → softmax over the classes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Model {
    /// From the input to the output; never empty, each as wide as the next one wants it.
    pub(crate) layers: Vec<Layer>,
    /// What an input is standardised by: `(x - mean) * scale`, each as long as an input.
    pub(crate) mean: Vec<f32>,
    pub(crate) scale: Vec<f32>,
    /// The columns' names, as many as there are inputs.
    pub(crate) features: Vec<String>,
    /// As many as there are outputs.
    pub(crate) classes: Vec<String>,
    /// How it came to be: which data, seed, epochs, and how good it is. Each name once, in this order.
    pub(crate) notes: Vec<(String, String)>,
}

/// `y = W·x + b`, as PyTorch's `nn.Linear` has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layer {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Row by row, one row an output.
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// How large a model may be that is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) layers: usize,
    /// The most inputs, and outputs, of a layer.
    pub(crate) width: usize,
    /// All numbers of it together.
    pub(crate) parameters: usize,
}

/// Why a file is no model that can be used here, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this model cannot be loaded: {0}")]
pub(crate) struct Refusal(String);

fn refuse<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal(why))
}

/// The longest name of a class or a column.
const NAME_MAX: usize = 200;
pub(super) const NAME_RULE: &str = "a name is one line of at most 200 bytes";

/// Whether a class or a column can be called so.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX && !name.chars().any(char::is_control)
}

/// As a safetensors file that `nn.Sequential(Linear, ReLU, Linear, …)` of PyTorch loads. The same model
/// gives the same bytes, whenever and wherever. Names are written as they are, also ones that
/// [`from_bytes`] would refuse: whoever makes a model keeps those out.
pub(crate) fn to_bytes(model: &Model) -> Vec<u8> {
    let widths = model.layers.iter().map(|layer| layer.outputs);
    let widths: Vec<String> = model
        .layers
        .first()
        .map(|layer| layer.inputs)
        .into_iter()
        .chain(widths)
        .map(|width| width.to_string())
        .collect();
    let notes = model.notes.iter().map(|(name, note)| format!("{}:{}", json!(name), json!(note)));
    let metadata = [
        ("architecture", format!("dense {}, ReLU between, softmax at the end", widths.join("-"))),
        ("classes", json!(model.classes).to_string()),
        ("features", json!(model.features).to_string()),
        ("notes", format!("{{{}}}", notes.collect::<Vec<_>>().join(","))),
    ];
    let mut tensors: Vec<Written<'_>> = vec![
        ("input.mean".into(), vec![model.mean.len()], &model.mean),
        ("input.scale".into(), vec![model.scale.len()], &model.scale),
    ];
    for (layer, index) in model.layers.iter().zip((0_usize..).step_by(2)) {
        tensors.push((format!("{index}.weight"), vec![layer.outputs, layer.inputs], &layer.weight));
        tensors.push((format!("{index}.bias"), vec![layer.outputs], &layer.bias));
    }
    safetensors::write(&metadata, &tensors)
}

/// Reads what [`to_bytes`] wrote, and the plain weights of somebody else's network of that form: its
/// classes and columns are then called `0`, `1`, …, and its inputs are used as they are.
pub(crate) fn from_bytes(bytes: &[u8], limits: Limits) -> Result<Model, Refusal> {
    let File { metadata, mut tensors } = safetensors::read(bytes)?;
    let numbers: usize = tensors.iter().map(Tensor::len).sum();
    if numbers > limits.parameters {
        return refuse(format!(
            "it has {numbers} numbers, at most {} are allowed",
            limits.parameters
        ));
    }
    let layers = take_layers(&mut tensors, limits)?;
    let (inputs, outputs) = match layers.as_slice() {
        [first, .., last] => (first.inputs, last.outputs),
        [only] => (only.inputs, only.outputs),
        [] => return refuse(missing("0.weight", &tensors)),
    };
    if outputs < 2 {
        return refuse(
            "its last layer gives 1 output: a network that tells classes apart gives at least 2"
                .into(),
        );
    }
    let mean = take_vector(&mut tensors, "input.mean", inputs)?;
    let scale = take_vector(&mut tensors, "input.scale", inputs)?;
    if mean.is_some() != scale.is_some() {
        return refuse("it has only one of input.mean and input.scale".into());
    }
    if let Some(Tensor { name, .. }) = tensors.first() {
        return refuse(format!("{} has no place in it: {FORM}", shown(name)));
    }
    let text =
        |key: &str| metadata.iter().find(|(name, _)| name == key).map(|(_, text)| text.as_str());
    let notes =
        text("notes").map(|notes| safetensors::parse::<Table<String>>("notes", notes.as_bytes()));
    Ok(Model {
        mean: mean.unwrap_or_else(|| vec![0.0; inputs]),
        scale: scale.unwrap_or_else(|| vec![1.0; inputs]),
        features: names("features", text("features"), ("inputs", inputs))?,
        classes: names("classes", text("classes"), ("outputs", outputs))?,
        notes: notes.transpose()?.map(|Table(notes)| notes).unwrap_or_default(),
        layers,
    })
}

const FORM: &str =
    "0.weight, 0.bias, 2.weight, 2.bias, … are read, as of nn.Sequential(Linear, ReLU, Linear, …)";

fn missing(name: &str, tensors: &[Tensor<'_>]) -> String {
    match tensors.first() {
        Some(other) => format!("{name} is missing, and {} is there: {FORM}", shown(&other.name)),
        None => format!("{name} is missing: {FORM}"),
    }
}

fn take<'a>(tensors: &mut Vec<Tensor<'a>>, name: &str) -> Option<Tensor<'a>> {
    let at = tensors.iter().position(|tensor| tensor.name == name)?;
    Some(tensors.remove(at))
}

/// All layers there are, each as wide as the one before it wants it.
fn take_layers(tensors: &mut Vec<Tensor<'_>>, limits: Limits) -> Result<Vec<Layer>, Refusal> {
    let mut layers: Vec<Layer> = vec![];
    for index in (0_usize..).step_by(2) {
        let name = format!("{index}.weight");
        let Some(weight) = take(tensors, &name) else { break };
        if layers.len() == limits.layers {
            return refuse(format!("it has more than {} layers", limits.layers));
        }
        let [outputs, inputs] = *weight.shape else {
            return refuse(format!("{name} is {}, and no matrix", shape(&weight.shape)));
        };
        let width = |side: u64| match usize::try_from(side) {
            Ok(width) if (1..=limits.width).contains(&width) => Ok(width),
            _ => refuse(format!(
                "{name} is {}: a layer has 1 to {} inputs and outputs",
                shape(&weight.shape),
                limits.width
            )),
        };
        let (inputs, outputs) = (width(inputs)?, width(outputs)?);
        if let Some(before) = layers.last()
            && before.outputs != inputs
        {
            return refuse(format!(
                "{name} is {}, but {}.weight gives {} outputs",
                shape(&weight.shape),
                index - 2,
                before.outputs
            ));
        }
        let bias_name = format!("{index}.bias");
        let Some(bias) = take_vector(tensors, &bias_name, outputs)? else {
            return refuse(missing(&bias_name, tensors));
        };
        layers.push(Layer { inputs, outputs, weight: finite(&weight)?, bias });
    }
    Ok(layers)
}

fn take_vector(
    tensors: &mut Vec<Tensor<'_>>,
    name: &str,
    length: usize,
) -> Result<Option<Vec<f32>>, Refusal> {
    let Some(tensor) = take(tensors, name) else { return Ok(None) };
    if tensor.shape != [length as u64] {
        return refuse(format!("{name} is {}, and should be [{length}]", shape(&tensor.shape)));
    }
    finite(&tensor).map(Some)
}

fn finite(tensor: &Tensor<'_>) -> Result<Vec<f32>, Refusal> {
    let numbers = tensor.numbers();
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(at) => refuse(format!("{} holds {} at {at}", shown(&tensor.name), numbers[at])),
        None => Ok(numbers),
    }
}

/// A list of names in JSON, each once, as many as there are inputs or outputs; or their numbers.
fn names(
    what: &str,
    list: Option<&str>,
    (ends, count): (&str, usize),
) -> Result<Vec<String>, Refusal> {
    let Some(list) = list else { return Ok((0..count).map(|n| n.to_string()).collect()) };
    let names: Vec<String> = safetensors::parse(what, list.as_bytes())?;
    if names.len() != count {
        return refuse(format!("it names {} {what} for {count} {ends}", names.len()));
    }
    let mut known = BTreeSet::new();
    for name in &names {
        if !is_name(name) {
            return refuse(format!("{what}: {}: {NAME_RULE}", shown(name)));
        }
        if !known.insert(name) {
            return refuse(format!("{what}: {} stands there twice", shown(name)));
        }
    }
    Ok(names)
}

/// A stranger's word in a line of ours.
fn shown(text: &str) -> String {
    text::one_line(text, 60)
}

/// `[10, 64]`, as PyTorch shows it.
fn shape(sides: &[u64]) -> String {
    let all = sides.iter().take(9).map(u64::to_string).collect::<Vec<_>>().join(", ");
    text::cap(&format!("[{all}]"), 100)
}

#[cfg(test)]
mod tests;
