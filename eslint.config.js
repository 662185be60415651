// What the compiler does not check. Type-checked rules see all of TypeScript; scripts get the few that need no types.
import tseslint from 'typescript-eslint';

const everywhere = {
  'eqeqeq': 'error',
  'no-var': 'error',
  'prefer-const': 'error',
  'no-eval': 'error',
  'no-self-compare': 'error',
  'no-unreachable': 'error',
  'no-constant-binary-expression': 'error',
  'no-template-curly-in-string': 'error',
  'no-unsafe-finally': 'error',
  'no-control-regex': 'off',
  'no-debugger': 'error',
  'no-dupe-keys': 'error',
  'no-fallthrough': 'error',
  'max-lines': ['error', { max: 450, skipBlankLines: true }],
};

export default tseslint.config(
  { ignores: ['**/node_modules/', '**/dist/', '**/build/', '**/prebuilds/', 'coverage/', 'docs/', '**/.state/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' }, rules: everywhere },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: {
      parserOptions: {
        project: ['libtlspool/tsconfig.json', 'common/tsconfig.json', 'daemon/tsconfig.json', 'proxy/tsconfig.json', 'test/tsconfig.json'],
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/prefer-promise-reject-errors': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/ban-ts-comment': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', caughtErrorsIgnorePattern: '^_' }],
      // A function of an interface may be async without awaiting.
      '@typescript-eslint/require-await': 'off',
      // Numbers in texts are fine; objects are what goes wrong.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
    },
  },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts'],
    rules: {
      // Tests feed wrong types on purpose, and look at what nobody declared.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      // A test that is wrong about null fails, which is what it is for.
      '@typescript-eslint/no-non-null-assertion': 'off',
      'no-restricted-properties': ['error',
        ...['it', 'describe', 'context', 'specify'].flatMap((object) => ['only', 'skip'].map((property) => ({ object, property, message: 'It narrows the run silently.' }))),
      ],
    },
  },
);
