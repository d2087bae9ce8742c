"""What fine-tuning changed, as low-rank factors, and Hugging Face peft's files of it."""
