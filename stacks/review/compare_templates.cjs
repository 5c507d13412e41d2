// Compares templates with the CDK's own library, and prints the differences as JSON.
//
// Standard input: a list of {old, new}. Standard output: a list of differences, in the same order.
// One run compares many pairs, because the library takes a second to load its database of types.

const { fullDiff, deepEqual } = require("@aws-cdk/cloudformation-diff");

function removeMarks(value) {
  const text = JSON.stringify(value);
  return text === undefined ? undefined : JSON.parse(text.replaceAll('(replaced)"', '"'));
}

function readProperties(change) {
  const found = {};
  for (const [name, update] of Object.entries(change.propertyUpdates)) {
    // The library marks a reference to a replaced resource, and counts it as a change. Without the
    // mark, its text is the same.
    const newValue = removeMarks(update.newValue);
    found[name] = {
      old: update.oldValue,
      new: newValue,
      impact: update.changeImpact,
      is_propagated: deepEqual(update.oldValue, newValue),
    };
  }
  return found;
}

function readResources(diff) {
  const found = [];
  diff.resources.forEachDifference((logicalId, change) => {
    const others = {};
    for (const [name, other] of Object.entries(change.otherChanges)) {
      others[name] = { old: other.oldValue, new: other.newValue };
    }
    found.push({
      logical_id: logicalId,
      impact: change.changeImpact,
      old: change.oldValue,
      new: change.newValue,
      properties: readProperties(change),
      others,
    });
  });
  return found;
}

function readOutputs(diff) {
  const found = {};
  diff.outputs.forEachDifference((name, change) => {
    found[name] = { old: change.oldValue, new: change.newValue };
  });
  return found;
}

const pairs = JSON.parse(require("fs").readFileSync(0, "utf8"));
const differences = pairs.map((pair) => {
  const diff = fullDiff(pair.old, pair.new);
  return { resources: readResources(diff), outputs: readOutputs(diff) };
});
process.stdout.write(JSON.stringify(differences));
