// Runs one function of the CDK's Provider framework, as it is deployed: node provider.js FOLDER NAME.
// Standard input gives its event, then the answers to what it asks of AWS on standard output.
const lines = require("readline").createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const read = async () => JSON.parse((await lines.next()).value);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const ask = async (message) => (say(message), read());

const [folder, name] = process.argv.slice(2);
console.log = () => {};
// Lambda has the SDK; nothing of it is reached here.
const Module = require("module");
const load = Module._load;
Module._load = (request, ...rest) => (request.startsWith("@aws-sdk/") ? {} : load(request, ...rest));
const outbound = require(`${folder}/outbound.js`);
outbound.invokeFunction = async ({ FunctionName, Payload }) =>
  ask({ invoke: FunctionName, payload: JSON.parse(Payload) });
outbound.startExecution = async ({ input }) => ask({ wait: JSON.parse(input) });
outbound.httpRequest = async (_options, body) => ask({ answer: body });

(async () => {
  try {
    await require(`${folder}/framework.js`)[name](await read());
    say({ done: true });
  } catch (error) {
    // What the state machine around it repeats.
    say({ retry: error.constructor.name === "Retry", error: String(error) });
  }
  process.exit();
})();
