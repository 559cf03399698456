// What a person reads in panels: frames go through Grafana's own data layer (@grafana/data).
// stdin: {now_ms, variables: {name: text}, panels: [{panel, frame}]}; stdout: an array with, for each panel,
// {problems, numbers: [{title, text, color}], series: [{name, kind, hidden, color, values, texts, colors, links, legend}]}.
const g = require('@grafana/data');
const { lastValueFrom } = require('rxjs');

// Only now: some of its modules ask for these while they load, and take their presence for a browser.
globalThis.window = globalThis;
if (!globalThis.navigator) globalThis.navigator = { language: 'en-US', languages: ['en-US'] };

// Grafana registers its transformers and field options when it starts; their editors are not needed here.
const transformers = new Map(Object.values(g.standardTransformers).filter((one) => one && one.id).map((one) => [one.id, one]));
g.standardTransformersRegistry.setInit(() => [...transformers.values()].map((one) => (
  { id: one.id, name: one.name, transformation: () => Promise.resolve(one), editor: null })));
const PROCESSORS = {
  unit: g.unitOverrideProcessor, decimals: g.numberOverrideProcessor, min: g.numberOverrideProcessor,
  max: g.numberOverrideProcessor, displayName: g.displayNameOverrideProcessor, noValue: g.stringOverrideProcessor,
  color: g.identityOverrideProcessor, thresholds: g.thresholdsOverrideProcessor,
  mappings: g.valueMappingsOverrideProcessor, links: g.dataLinksOverrideProcessor,
};
// Options of a panel type itself, custom.width and the like, are taken as they are.
const CUSTOM = ['width', 'hidden', 'hideFrom', 'cellOptions'];
const option = (id, path, process, more) => ({
  id, path, name: id, process, settings: {}, editor: null, override: null, shouldApply: () => true, getItemsCount: () => 0, ...more });
const REGISTRY = new g.FieldConfigOptionsRegistry(() => [
  ...Object.entries(PROCESSORS).map(([id, process]) =>
    option(id, id, process, id === 'displayName' ? { settings: { expandTemplateVars: true } } : {})),
  ...CUSTOM.map((id) => option(`custom.${id}`, id, g.identityOverrideProcessor, { isCustom: true })),
]);
const UNITS = new Set(g.getValueFormats().flatMap((group) => group.submenu.map((one) => one.value)));
const THEME = g.createTheme();

// Variables of texts as the dashboard puts them in. What is unknown stays, so that tests find it.
function replacer(variables) {
  return (text, scoped) => String(text ?? '').replace(/\$\{([\w.]+)(?::(\w+))?\}|\$(\w+)/g, (all, path, form, bare) => {
    const [root, kind, ...rest] = (path || bare).split('.');
    const here = scoped && scoped.__dataContext && scoped.__dataContext.value;
    let value;
    if (root === '__field' && here) value = kind === 'labels' ? (here.field.labels || {})[rest.join('.')] : here.field.name;
    else if (root === '__data' && here) value = g.getFieldDisplayValuesProxy({ frame: here.frame, rowIndex: here.rowIndex })[rest.join('.')];
    else if (root in variables) value = variables[root];
    if (value === undefined) return all;
    if (form === 'percentencode') return encodeURIComponent(String(value));
    return form === 'queryparam' ? `var-${root}=${encodeURIComponent(value)}` : String(value);
  });
}

function problemsOf(panel) {
  const config = panel.fieldConfig || {};
  const rules = config.overrides || [];
  const properties = rules.flatMap((one) => one.properties);
  const units = [(config.defaults || {}).unit, ...properties.filter((one) => one.id === 'unit').map((one) => one.value)];
  const options = panel.options || {};
  const calcs = [...((options.reduceOptions || {}).calcs || []), ...((options.legend || {}).calcs || [])];
  return [
    ...(panel.transformations || []).filter((one) => !transformers.has(one.id)).map((one) => `unknown transformation ${one.id}`),
    ...units.filter((one) => one && !UNITS.has(one)).map((one) => `unknown unit ${one}`),
    ...calcs.filter((one) => !g.fieldReducers.getIfExists(one)).map((one) => `unknown calculation ${one}`),
    ...rules.filter((one) => !g.fieldMatchers.getIfExists(one.matcher.id)).map((one) => `unknown matcher ${one.matcher.id}`),
    ...properties.filter((one) => !(one.id in PROCESSORS) && !CUSTOM.includes(one.id.replace('custom.', '')))
      .map((one) => `unknown property ${one.id}`),
  ];
}

async function shown({ panel, frame }, replace) {
  const known = (panel.transformations || []).filter((one) => transformers.has(one.id));
  let data = await lastValueFrom(g.transformDataFrame(known, [g.dataFrameFromJSON(frame)], { interpolate: (text) => text }));
  const fieldConfig = panel.fieldConfig || { defaults: {}, overrides: [] };
  data = g.applyFieldOverrides({ data, fieldConfig, fieldConfigRegistry: REGISTRY, replaceVariables: replace, theme: THEME, timeZone: 'utc' });
  const options = panel.options || {};
  let numbers = [];
  if (panel.type === 'stat') {
    const found = g.getFieldDisplayValues({
      data, fieldConfig, reduceOptions: options.reduceOptions, replaceVariables: replace, theme: THEME, timeZone: 'utc' });
    numbers = found.map((one) => ({
      title: one.display.title, text: g.formattedValueToString(one.display), color: one.display.color }));
  }
  const series = data.flatMap((one) => one.fields.map((field) => {
    const calcs = (options.legend || {}).calcs || [];
    const reduced = field.type === 'number' && calcs.length ? g.reduceField({ field, reducers: calcs }) : {};
    const cells = field.values.map((value) => field.display(value));
    const own = field.config.custom || {};
    return {
      name: g.getFieldDisplayName(field, one, data), raw: field.name, kind: field.type,
      hidden: Boolean(own.hidden || (own.hideFrom && own.hideFrom.viz)),
      color: field.type === 'number' ? g.getFieldSeriesColor(field, THEME).color : null,
      min: field.config.min ?? null, max: field.config.max ?? null,
      cell: (own.cellOptions || {}).type || '', width: own.width || null,
      values: [...field.values], texts: cells.map(g.formattedValueToString), colors: cells.map((cell) => cell.color || null),
      percents: cells.map((cell) => cell.percent ?? null),
      links: field.values.length && field.config.links
        ? field.getLinks({ valueRowIndex: 0 }).map((link) => ({ title: link.title, href: link.href })) : [],
      legend: calcs.map((calc) => [g.fieldReducers.get(calc).name, g.formattedValueToString(field.display(reduced[calc]))]),
    };
  }));
  return { numbers, series };
}

async function main() {
  const asked = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  Date.now = () => asked.now_ms; // "today" is the day of the answers
  const replace = replacer(asked.variables);
  const told = [];
  for (const one of asked.panels) {
    const problems = problemsOf(one.panel);
    try {
      told.push({ problems, ...(await shown(one, replace)) });
    } catch (error) {
      told.push({ problems: [...problems, String(error.stack || error)], numbers: [], series: [] });
    }
  }
  process.stdout.write(JSON.stringify(told));
}

main();
