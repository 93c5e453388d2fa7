"""The five files of a Chatterbox checkpoint, by name. Knows no model."""

VOICE_ENCODER_FILE, T3_FILE, S3GEN_FILE = "ve.safetensors", "t3_cfg.safetensors", "s3gen.safetensors"
TOKENIZER_FILE, VOICE_FILE = "tokenizer.json", "conds.pt"
FILES = (VOICE_ENCODER_FILE, T3_FILE, S3GEN_FILE, TOKENIZER_FILE, VOICE_FILE)  # in the order of the checkpoint's hash
WEIGHT_FILES = (VOICE_ENCODER_FILE, T3_FILE, S3GEN_FILE)
STAND_INS = FULL, TINY = "stand-in", "stand-in-tiny"  # checkpoints of random weights
