/** Renders `--help`. @module */
import { type OptionName, options } from './options.js';
import { type Topic, type TopicName, topics } from './topics.js';

function optionLines(names: readonly OptionName[]): string {
  const rows = names.map(name => {
    const option = options[name];
    const short = 'short' in option ? `-${option.short}, ` : '    ';
    const argument = option.argument ? ` ${option.argument}` : '';
    return { left: `  ${short}--${name}${argument}`, text: option.text };
  });
  const width = Math.max(...rows.map(row => row.left.length)) + 2;
  return rows
    .map(({ left, text }) => `${left.padEnd(width)}${text.replaceAll('\n', `\n${' '.repeat(width)}`)}\n`)
    .join('');
}

export function helpText(name: TopicName): string {
  const topic: Topic = topics[name];
  return `Usage: ${topic.usage}

${topic.text}

Options:
${optionLines(topic.options)}
Example:
  ${topic.example}
`;
}
