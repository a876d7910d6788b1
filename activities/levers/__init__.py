"""Levers: how one kind of target is held at exactly (old, new). One file a kind; ``base`` says what each must do."""
