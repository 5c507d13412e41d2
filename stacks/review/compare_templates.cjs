// Compares templates with the CDK's own library, and prints the differences as JSON.
//
// Standard input: a list of {old, new}. Standard output: a list of differences, in the same order.
// One run compares many pairs, because the library takes a second to load its database of types.

const { fullDiff, deepEqual } = require("@aws-cdk/cloudformation-diff");

function readProperties(change) {
  const found = {};
  for (const [name, update] of Object.entries(change.propertyUpdates)) {
    found[name] = {
      old: update.oldValue,
      new: update.newValue,
      impact: update.changeImpact,
      // A reference to a replaced resource counts as a change, although its text is the same.
      is_propagated: deepEqual(update.oldValue, update.newValue),
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
