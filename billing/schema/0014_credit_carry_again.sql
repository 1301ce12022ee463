-- Carried credit once more: what is over what the meter can hold waits for the office, a meter that was cleared gets its
-- credit back by a token, and a person's word about a token stands where the meter cannot speak.
SET LOCAL search_path = billing;

ALTER TABLE credit_carry
  DROP CONSTRAINT credit_carry_state_check,
  ADD CONSTRAINT credit_carry_state_check CHECK (state IN ('EMPTY', 'WAITING', 'HELD', 'BOUND', 'RESERVED', 'DONE',
    'REFUSED', 'SETTLED', 'RETURNED')),
  -- It forbade a meter its own credit; one that the workshop cleared must have it again.
  DROP CONSTRAINT credit_carry_check;

CREATE TABLE token_word (
  token_id bigint PRIMARY KEY REFERENCES token,
  word text NOT NULL CHECK (word IN ('taken', 'not_taken')),
  said_by text NOT NULL CHECK (said_by <> ''),
  note text NOT NULL DEFAULT '',
  said_at timestamptz NOT NULL
);
CREATE TRIGGER token_word_is_a_fact BEFORE UPDATE OR DELETE ON token_word
  FOR EACH ROW EXECUTE FUNCTION meter_gateway.refuse_change();
CREATE VIEW v_token_word AS SELECT token_id, word, said_by, note, said_at FROM token_word;
