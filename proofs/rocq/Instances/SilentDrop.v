(** * Instance: a machine for Theorem 3 that is none for Theorem 1

    The PDP-10's JRST 1, which leaves supervisor mode, is silent in user mode: control sensitive and not
    privileged.  The paper's machine with that strap off has a hybrid monitor, and no other. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1 Popek.Theorem3.
Require Import Popek.Instances.PaperMachine.
Import ListNotations.

Definition all_but_drop (i : op) : bool := match i with DROP _ => false | _ => true end.
Definition silent_drop : third_generation := pg all_but_drop.

Lemma user_sensitive_sensitive t i : user_sensitive t i -> sensitive t i.
Proof.
  intros [(S & T & U & X & Ch) | (S & T & S' & T' & A & U & U' & X & X' & D)]; [left | right; left].
  - now exists S, T.
  - exists S, T, S', T'. repeat split; try apply A; congruence.
Qed.

Lemma drop_not_user_sensitive a : ~ user_sensitive silent_drop (DROP a).
Proof.
  intros [(S & T & U & X & Ch) | (S & T & S' & T' & [Hp Hv] & U & U' & X & X' & D)];
    apply run_op_completes in X; destruct X as (_ & v & q & Do & Len & ->); cbn [does] in Do;
    inversion Do; subst v q; cbn [word silent_drop pg] in *.
  - cbn in Ch. rewrite U in Ch. now destruct Ch.
  - apply run_op_completes in X'. destruct X' as (_ & v' & q' & Do' & Len' & ->). cbn [does] in Do'.
    inversion Do'. subst v' q'. unfold differ in D. cbn [word silent_drop pg E P R] in D.
    destruct (replaced (R S) _ (E S) Len) as (_ & V & _), (replaced (R S') _ (E S') Len') as (_ & V' & _).
    rewrite V, V' in D. now destruct D.
Qed.

Lemma user_sensitive_is_privileged i : user_sensitive silent_drop i -> privileged silent_drop i.
Proof.
  intros Sens. destruct (is_strapped i) eqn:Has.
  - destruct (all_but_drop i) eqn:On; [now apply strapped_privileged |].
    destruct i; try discriminate. now apply drop_not_user_sensitive in Sens.
  - apply user_sensitive_sensitive in Sens. now apply (unstrapped_innocuous all_but_drop) in Has.
Qed.

Theorem silent_drop_hosts_a_hybrid : hybrid_monitor silent_drop.
Proof.
  apply theorem_3; [exact user_sensitive_is_privileged | | |].
  - intros i S T S' U _. now apply (pg_R all_but_drop).
  - intros i S T S' U _. now apply (pg_T all_but_drop).
  - intros i S T _. apply (all_confined all_but_drop).
Qed.

(** Theorem 1 does not apply. *)

Definition dropping (m : mode) : storage_state cell :=
  St [Word supervisor 9 5 0; Word supervisor 0 0 0; Word supervisor 0 0 0] m 0 (Rel 0 3).

Lemma drop_is_control_sensitive : control_sensitive silent_drop (DROP 5).
Proof. exists (dropping supervisor). eexists. split; [reflexivity |]. now left. Qed.

Lemma drop_is_not_privileged : ~ privileged silent_drop (DROP 5).
Proof. intros [Never _]. now apply (Never (dropping user) (St (E (dropping user)) user 5 (Rel 0 3))). Qed.

Theorem theorem_1_does_not_apply : ~ forall i, sensitive silent_drop i -> privileged silent_drop i.
Proof.
  intros Sub. apply drop_is_not_privileged, Sub. left. exact drop_is_control_sensitive.
Qed.

(** Nor does its premise A1 hold, and the monitor of Theorem 1 goes astray after one step: the guest is in
    user mode, and the control program believes it in supervisor mode. *)

Definition small_part : control cell := Control (Word supervisor 3 0 6) [] [].

Theorem A1_does_not_hold : ~ A1_fidelity (machine_of silent_drop) (paper silent_drop).
Proof.
  intros A1. destruct (A1 (DROP 5) (dropping supervisor) small_part _ eq_refl eq_refl eq_refl)
    as (S' & X & _ & N).
  inversion X. subst S'. discriminate N.
Qed.

Theorem no_monitor_of_theorem_1 : ~ virtual_machine_monitor silent_drop.
Proof.
  intros V. destruct (monitor_needs silent_drop small_part V eq_refl (dropping supervisor) _ eq_refl eq_refl
      (ex_intro _ (DROP 5) (conj eq_refl eq_refl))) as [_ N]. discriminate N.
Qed.
