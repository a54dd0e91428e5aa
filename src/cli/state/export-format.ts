/** Forms that a saved state can be exported to. @module */

export const EXPORT_FORMATS = ['dts', 'json', 'rfc'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];
