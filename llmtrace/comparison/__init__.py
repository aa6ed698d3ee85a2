"""One model on two runtimes, formats or precisions: where do they stop agreeing, and why?"""
